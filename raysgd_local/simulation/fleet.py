"""A fleet in virtual time: the real controller and members over simulated processes, network and clock."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from raysgd_local.control import controller
from raysgd_local.control import controller_events as c
from raysgd_local.control.controller_state import Controller, begin
from raysgd_local.control.member_events import Cut, LeaveAsked, YieldAsked
from raysgd_local.control.protocol import Order
from raysgd_local.control.saves import snapshot_of
from raysgd_local.records import EvalRow, RoundRow, to_plain
from raysgd_local.simulation.faults import UNTARGETED, Fault
from raysgd_local.simulation.invariants import violated
from raysgd_local.simulation.model import Shard
from raysgd_local.simulation.network import Network
from raysgd_local.simulation.scenario import Scenario
from raysgd_local.simulation.watch import Watch
from raysgd_local.simulation.worker import Worker

_MOST_EVENTS, _MOST_S = 60_000, 4_000.0


@dataclass(frozen=True)
class Ended:
    """How a simulated run ended, at virtual time `now`; `fired` are the faults that happened."""

    finish: c.Finish
    now: float
    events: int
    rounds: tuple[RoundRow, ...]
    evaluations: tuple[EvalRow, ...]
    controller: Controller
    recorded: tuple[tuple[float, c.RecordEvent], ...]
    fired: tuple[Fault, ...]


class Fleet:
    """Runs one scenario. Events happen in the order of time, and of their making where times are equal."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.now = 0.0
        self.random = Random(f"fleet {scenario.seed}")
        self.watch = Watch()
        self.network = Network(self.random, lambda _label, _members: 0.01)
        self.workers: dict[str, Worker] = {}
        self.controller = begin(scenario.settings)
        self.recorded: list[tuple[float, c.RecordEvent]] = []
        self.fired: list[Fault] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._made = self._happened = 0
        self._said: dict[str, float] = {}
        self._finish: c.Finish | None = None
        self._generation = 0
        self._zombies: dict[str, float] = {}
        self._manifests: dict[str, str] = {}
        self._orphans: set[str] = set()
        self._journal: list[tuple[c.Event, float, tuple[c.Command, ...]]] = []
        self._journal_began = self.controller
        self._unpublished = False
        self._due = list(scenario.faults)

    def run(self) -> Ended:
        """The whole run. Raises `Violated` if an invariant does not hold at any moment of it."""
        for fault in self.scenario.faults:
            if fault.when.seconds is not None:
                self._at(fault.when.seconds, partial(self._fire, fault))
        self._advance(c.RunStarted())
        while self._finish is None:
            self._happen()
        self.watch.ended(self.controller, self.scenario.loop.samples, bool(self.scenario.loop.early))
        self._judge(self._finish)
        self._replay()
        return Ended(
            self._finish,
            self.now,
            self._happened,
            tuple(self.watch.rounds),
            tuple(self.watch.evaluations),
            self.controller,
            tuple(self.recorded),
            tuple(self.fired),
        )

    def _happen(self) -> None:
        if not self._queue:
            violated("9: every run ends", f"nothing will happen any more in phase {self.controller.phase.value}")
        self._happened += 1
        if self._happened > _MOST_EVENTS or self.now > _MOST_S:
            violated("9: every run ends", f"still {self.controller.phase.value} at {self.now:g} s")
        self.now, _, action = heapq.heappop(self._queue)
        action()
        for fault in [fault for fault in self._due if fault.when.event == self._happened]:
            self._fire(fault)

    def _at(self, delay_s: float, action: Callable[[], None]) -> None:
        self._made += 1
        heapq.heappush(self._queue, (self.now + delay_s, self._made, action))

    # What workers need.

    def after(self, delay_s: float, worker: Worker, action: Callable[[], None]) -> None:
        def happen() -> None:
            if worker.frozen:
                worker.deferred.append(happen)
            elif worker.alive:
                action()

        self._at(delay_s, happen)

    def tell(self, worker: str, event: c.Event) -> None:
        """In the order of sending, and some of it once more later."""
        heard = max(self.now + self._delay_s(), self._said.get(worker, 0.0))
        self._said[worker] = heard
        generation = self._generation
        self._at(heard - self.now, lambda: self._hear(event, generation))
        if self.random.random() < self.scenario.noise.twice:
            self._at(heard - self.now + self._delay_s() * 20, lambda: self._hear(event, generation))

    def _hear(self, event: c.Event, generation: int) -> None:
        if generation == self._generation:
            self._advance(event)

    def _delay_s(self) -> float:
        noise = self.scenario.noise
        delay_s = self.random.random() * noise.delay_s
        return delay_s * 100 if self.random.random() < noise.late else delay_s

    def step_s(self, worker: Worker) -> float:
        return self.random.expovariate(1 / self.scenario.step_s) * worker.slow

    def io_s(self) -> float:
        return self.random.uniform(0.01, 0.3)

    def load(self, name: str) -> dict[int, Shard]:
        return self.watch.published[name]

    def committed(self, round: int) -> None:
        for fault in [f for f in self._due if f.when.round is not None and f.when.round <= round]:
            self._due.remove(fault)
            self._at(0.0, partial(self._fire, fault))

    def ended(self, worker: Worker, why: str) -> None:
        """A process is gone; Ray says so soon."""
        if not worker.alive:
            return
        worker.alive = False
        self._notice(worker.name, why)

    def _notice(self, name: str, why: str) -> None:
        generation = self._generation
        self._at(self.random.uniform(0.005, 0.2), lambda: self._hear(c.Died(name, why), generation))

    # The controller's shell.

    def _advance(self, event: c.Event) -> None:
        if self._finish is not None:
            return
        self.controller, commands = controller.advance(self.controller, event, self.now)
        if self.scenario.journal:
            self._journal.append((event, self.now, commands))
        for command in commands:
            self._run(command)
        self.watch.turned(self.controller)

    def _run(self, command: c.Command) -> None:
        match command:
            case c.RequestWorker(worker):
                generation = self._generation
                delay_s = self.random.uniform(0.2, 1.0) * self.scenario.startup_s
                self._at(delay_s, lambda: self._start(worker, generation))
            case c.KillWorker(worker):
                self._kill_later(worker)
            case c.Form(order, to):
                self.watch.ordered(self.controller, order, self.workers)
                self._each(to, lambda worker: worker.give(order), twice=True)
            case c.Yield(view, segment, to):
                self._each(to, lambda worker: worker.post(YieldAsked(view, segment)), twice=True)
            case c.CutView(view, to, why):
                self._each(to, lambda worker: worker.post(Cut(view, why)), twice=True)
            case c.SetTimer(id, delay_s):
                generation = self._generation
                self._at(delay_s, lambda: self._hear(c.Timer(id), generation))
            case _:
                self._write(command)

    def _write(self, command: c.Command) -> None:
        match command:
            case c.RecordRounds():
                self.watch.recorded(command)
            case c.RewindTables(round, evaluations):
                self.watch.rewound(round, evaluations)
            case c.RecordEvent():
                self.recorded.append((self.now, command))
            case c.PublishManifest(name, manifest):
                generation = self._generation
                self._at(self.io_s(), lambda: self._publish(name, manifest, generation))
            case c.DeleteCheckpoint(name):
                self._manifests.pop(name, None)
                self.watch.published.pop(name, None)
            case c.Finish():
                self._finish = command
            case _:
                raise TypeError(f"not a controller's command: {command!r}")

    def _each(self, to: tuple[str, ...], action: Callable[[Worker], None], twice: bool) -> None:
        """To one worker words may come in any order, and twice."""
        for name in to:
            worker = self.workers.get(name)
            if worker is None:
                continue
            again = twice and self.random.random() < self.scenario.noise.twice
            for _ in range(1 + again):
                self.after(self._delay_s(), worker, partial(action, worker))

    def _start(self, name: str, generation: int) -> None:
        if generation != self._generation or name not in self.controller.workers:
            return
        node = f"n{int(name[1:]) // self.scenario.workers_a_node}"
        scenario = self.scenario
        worker = Worker(name, node, self, scenario.loop, scenario.beat_s, scenario.collective_timeout_s)
        self.workers[name] = worker
        worker.start()

    def _kill_later(self, name: str) -> None:
        """What is killed dies soon; who is cut off from us goes on for a while."""
        worker = self.workers.get(name)
        if worker is not None:
            delay_s = self._zombies.get(name, self.random.choice((0.0, 0.1, 5.0)))
            self._at(delay_s, lambda: self._die(worker))

    def _die(self, worker: Worker, noticed: bool = True) -> None:
        if not worker.alive:
            return
        worker.frozen = False
        worker.alive = False
        worker.connection.leave()
        if noticed:
            self._notice(worker.name, "killed")

    def _publish(self, name: str, manifest: dict[str, Any], generation: int) -> None:
        if self._unpublished:
            self._unpublished = False
            self._hear(c.CheckpointFailed(name, "no space left"), generation)
            return
        if generation != self._generation:
            return
        self._manifests[name] = json.dumps(manifest)
        if name in self.controller.saves.writing:
            self.watch.checkpoint(snapshot_of(json.loads(self._manifests[name]), self._schedule))
        else:
            self._orphans.add(name)
        self._at(self._delay_s(), lambda: self._hear(c.CheckpointPublished(name), generation))

    @property
    def _schedule(self) -> Any:
        return self.scenario.settings.program.schedule

    # Faults.

    def _fire(self, fault: Fault) -> None:
        if self._finish is not None:
            return
        if fault.kind in UNTARGETED:
            self.fired.append(fault)
            self._fire_untargeted(fault)
            return
        worker = self._target(fault)
        if worker is not None:
            self.fired.append(fault)
            _FIRE[fault.kind](self, worker, fault)

    def _target(self, fault: Fault) -> Worker | None:
        members = self.controller.view.members if self.controller.view else ()
        alive = [w for w in self.workers.values() if w.alive and (w.name in members) != fault.joiner]
        if not fault.joiner:
            alive.sort(key=lambda w: members.index(w.name))
        return alive[fault.target % len(alive)] if alive else None

    def _fire_untargeted(self, fault: Fault) -> None:
        if fault.kind == "interrupt":
            self._advance(c.StopRequested("asked to"))
        elif fault.kind == "unpublished":
            self._unpublished = True
        else:
            self._restart()

    def _restart(self) -> None:
        """The driver is gone, and every worker with it; it starts again from the newest checkpoint."""
        self._generation += 1
        self.network.generation += 1
        for worker in self.workers.values():
            worker.alive = False
        self.workers.clear()
        self._said.clear()
        self._journal.clear()
        good = sorted(set(self._manifests) - self._orphans)
        newest = self._manifests[good[-1]] if good else None
        resume = None if newest is None else snapshot_of(json.loads(newest), self._schedule)
        self.controller = self._journal_began = begin(self.scenario.settings, resume)
        self.watch.restarted()
        self._advance(c.RunStarted())

    def _stop(self, worker: Worker, fault: Fault) -> None:
        worker.frozen = True
        if fault.amount < _MOST_S:
            self._at(fault.amount, lambda: self._thaw(worker))

    def _thaw(self, worker: Worker) -> None:
        worker.frozen = False
        deferred, worker.deferred = worker.deferred, []
        for action in deferred:
            action()

    def _zombie(self, worker: Worker, fault: Fault) -> None:
        self._zombies[worker.name] = fault.amount
        self._notice(worker.name, "taken for dead")

    def _drain(self, worker: Worker, fault: Fault) -> None:
        generation = self._generation
        self._at(self._delay_s(), lambda: self._hear(c.DrainNotice(worker.name, "preempted"), generation))
        self._at(fault.amount, lambda: self._die(worker))

    def _cut(self, worker: Worker, fault: Fault) -> None:
        del fault
        worker.connection.leave()

    def _judge(self, finish: c.Finish) -> None:
        """A run ends for a reason."""
        fired: set[str] = {fault.kind for fault in self.fired}
        calm = self.scenario.noise.delay_s * 100 < 2 and self.scenario.startup_s < 10
        needs: dict[str, set[str]] = {"failed": {"error", "nan"}, "interrupted": {"interrupt"}, "lost": set(fired)}
        if finish.status in needs and not needs[finish.status] & fired and (calm or finish.status != "lost"):
            violated("9: every run ends for a reason", f"{finish} after {sorted(fired)}")
        if calm and not fired and self.controller.losses:
            violated("nobody is given up for nothing", f"{self.controller.losses} workers lost")
        state = self.controller.books.replicated if self.controller.books else None
        over = state is not None and (state.stopped or state.epoch == self.scenario.loop.epochs)
        if finish.status == "finished" and not over:
            violated("9: every run ends for a reason", f"{finish} at {state}")

    def _replay(self) -> None:
        """The same inputs give the same commands."""
        state = self._journal_began
        for event, now, commands in self._journal:
            state, again = controller.advance(state, event, now)
            if to_plain(again) != to_plain(commands):
                violated("a journal can be replayed", f"{event}: {again} instead of {commands}")


def _set(name: str, value: Any) -> Callable[[Fleet, Worker, Fault], None]:
    return lambda _fleet, worker, _fault: setattr(worker, name, value)


_FIRE: dict[str, Callable[[Fleet, Worker, Fault], None]] = {
    "kill": lambda fleet, worker, _: fleet._die(worker),
    "vanish": lambda fleet, worker, _: fleet._die(worker, noticed=False),
    "stop": Fleet._stop,
    "zombie": Fleet._zombie,
    "slow": lambda _fleet, worker, fault: setattr(worker, "slow", max(1.0, fault.amount)),
    "drain": Fleet._drain,
    "sigterm": lambda _fleet, worker, _: worker.post(LeaveAsked()),
    "nan": _set("spoiled", True),
    "error": lambda _fleet, worker, _: worker.raise_error("ValueError: bad"),
    "cut": Fleet._cut,
    "unwritten": _set("unwritten", True),
}

__all__ = ["Ended", "Fleet", "Order"]
