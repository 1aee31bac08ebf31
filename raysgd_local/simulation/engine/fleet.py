"""A fleet in virtual time: the real controller over simulated processes, network and clock."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, assert_never

import numpy as np

from raysgd_local.control.controller import events as c
from raysgd_local.control.controller import machine as controller
from raysgd_local.control.controller.checkpoints import snapshot_of
from raysgd_local.control.controller.heartbeats import Pulse
from raysgd_local.control.controller.state import begin
from raysgd_local.control.member.events import Cut, YieldAsked
from raysgd_local.control.messages import Beat, worker_number
from raysgd_local.faults.language import Fault
from raysgd_local.simulation.engine.fault_injection import SimulatedInjector
from raysgd_local.simulation.engine.network import GREETING, Call, SimulatedNetwork
from raysgd_local.simulation.engine.pace import StepPaces
from raysgd_local.simulation.engine.scenario import Scenario
from raysgd_local.simulation.engine.violation import violated
from raysgd_local.simulation.engine.world import FleetObserver, Process

Hire = Callable[[str, str, "Fleet"], Process]


@dataclass(frozen=True)
class JournaledEvent:
    """One turn of the controller."""

    event: c.Event
    now: float
    commands: tuple[c.Command, ...]


class Fleet:
    """Runs one scenario. Events happen in order of time; at equal times, in the order in which they were queued.

    `hire` makes a worker with a name, on a node. `observer` follows the controller's events and commands. After `run`,
    `finish` is the run's end, `now` its virtual time, `fired` the faults that happened, and `pace` the workers' speed.
    """

    def __init__(self, scenario: Scenario, hire: Hire, observer: FleetObserver) -> None:
        self.scenario, self._hire, self.observer = scenario, hire, observer
        self.now = 0.0
        self.random = Random(f"fleet {scenario.seed}")
        self.network = SimulatedNetwork(self.random, self._collective_s)
        self._steps = np.random.default_rng(scenario.seed)
        self.pace = StepPaces()
        self.workers: dict[str, Process] = {}
        self.controller = begin(scenario.settings)
        self._pulse = Pulse(scenario.settings.timeouts.beat_s, 0.0)
        self.fired: list[Fault] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._made = self.happened = 0
        self._said: dict[str, float] = {}
        self.finish: c.Finish | None = None
        self.generation = 0
        self.zombies: dict[str, float] = {}
        self.draining: set[str] = set()
        self._manifests: dict[str, str] = {}
        self._orphans: set[str] = set()
        self.damaged: set[str] = set()
        self.journal: list[JournaledEvent] = []
        self.journal_began = self.controller
        self.unpublished = False
        self.injector = SimulatedInjector(scenario.faults, self)
        self._interrupted = False

    def run(self) -> c.Finish:
        """Run to the end. Raises `Violated` if the run does not end, or if the observer finds a broken invariant."""
        self.advance(c.RunStarted())
        self._look()
        while self.finish is None:
            if self._interrupted:
                self._interrupted = False
                self.advance(c.StopRequested("interrupted"))
            self._happen()
        for worker in self.workers.values():
            self.die(worker)
        return self.finish

    def interrupt(self) -> None:
        """Ask the run to end, with a checkpoint. A signal handler may call this."""
        self._interrupted = True

    def _happen(self) -> None:
        if not self._queue:
            violated("9: every run ends", f"nothing will happen any more in phase {self.controller.phase.value}")
        self.happened += 1
        limits = self.scenario.limits
        if self.happened > limits.events or self.now > limits.seconds:
            violated("9: every run ends", f"still {self.controller.phase.value} at {self.now:g} s")
        self.now, _, action = heapq.heappop(self._queue)
        action()
        self.injector.happened(self.happened)

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        """Run `action` after `delay_s` seconds."""
        self._made += 1
        heapq.heappush(self._queue, (self.now + delay_s, self._made, action))

    def fire(self, fault: Fault, worker: str) -> None:
        """Record that a fault happens now, to `worker`; empty for a fault of the run."""
        self.fired.append(fault)
        self.observer.fired(fault, worker, self.now)

    # Calls by workers.

    def after(self, delay_s: float, worker: Process, action: Callable[[], None]) -> None:
        def happen() -> None:
            if worker.frozen:
                worker.deferred.append(happen)
            elif worker.alive:
                action()

        self.at(delay_s, happen)

    def tell(self, worker: str, event: c.Event) -> None:
        """Send an event to the controller, after the same worker's earlier ones. Some events arrive a second time."""
        heard = max(self.now + self.delay_s(), self._said.get(worker, 0.0))
        self._said[worker] = heard
        generation = self.generation
        self.at(heard - self.now, lambda: self.hear(event, generation))
        if self.random.random() < self.scenario.noise.twice:
            self.at(heard - self.now + self.delay_s() * 20, lambda: self.hear(event, generation))

    def beat(self, beat: Beat) -> None:
        pulse = self._pulse
        self.at(self.delay_s(), lambda: pulse.beat(beat, self.now))

    def _look(self) -> None:
        self.advance(self._pulse.heartbeat(self.now))
        self.at(self.scenario.settings.timeouts.beat_s, self._look)

    def hear(self, event: c.Event, generation: int) -> None:
        if generation == self.generation:
            self.advance(event)

    def delay_s(self) -> float:
        noise = self.scenario.noise
        delay_s = self.random.random() * noise.delay_s
        return delay_s * 100 if self.random.random() < noise.late else delay_s

    def step_s(self, worker: Process) -> float:
        cluster = self.scenario.cluster
        drawn_s = float(cluster.steps.draw(self._steps, ()))
        step_s = drawn_s * worker.slow / cluster.speed(worker_number(worker.name))
        self.pace.stepped(worker.name, self.now, step_s)
        return step_s

    def _collective_s(self, call: Call, members: int) -> float:
        cluster = self.scenario.cluster
        if call.label == GREETING:
            return 0.0
        if call.label == "connect":
            return cluster.latency_s
        if call.source is not None:
            return cluster.broadcast_s(call.size_bytes, members)
        return cluster.reduction_s(call.size_bytes, members) + cluster.round_s

    def io_s(self) -> float:
        return self.random.uniform(0.01, 0.3)

    def committed(self, worker: Process, view: int, round: int) -> None:
        self.injector.committed(worker, view, round)

    def ended(self, worker: Process, why: str) -> None:
        """Note that a process has ended; the controller hears of it soon, as from Ray."""
        if not worker.alive:
            return
        worker.alive = False
        self.notice(worker.name, why)

    def notice(self, name: str, why: str) -> None:
        generation = self.generation
        self.at(self.random.uniform(0.005, 0.2), lambda: self.hear(c.Died(name, why), generation))

    # The controller's shell.

    def advance(self, event: c.Event) -> None:
        if self.finish is not None:
            return
        self.observer.heard(event, self.now)
        self.controller, commands = controller.advance(self.controller, event, self.now)
        if self.scenario.journal:
            self.journal.append(JournaledEvent(event, self.now, commands))
        for command in commands:
            self._run(command)
        self.observer.decided(event, commands, self.now)
        self.observer.turned(self.controller)
        self.injector.see(event, commands)

    def _run(self, command: c.Command) -> None:
        match command:
            case c.RequestWorker(worker):
                self._pulse.expect(worker)
                generation = self.generation
                self.at(self._startup_s(worker), lambda: self._start(worker, generation))
            case c.KillWorker(worker):
                self._pulse.forget(worker)
                self._kill_later(worker)
            case c.Form(order, to):
                self.observer.ordered(self.controller, order, self.workers)
                self._each(to, lambda worker: worker.give(order), twice=True)
            case c.Yield(view, segment, to):
                self._each(to, lambda worker: worker.post(YieldAsked(view, segment)), twice=True)
            case c.CutView(view, to, why):
                self._each(to, lambda worker: worker.post(Cut(view, why)), twice=True)
            case c.SetTimer(id, delay_s):
                generation = self.generation
                self.at(delay_s, lambda: self.hear(c.Timer(id), generation))
            case c.Finish():
                self.finish = command
            case _:
                self._write(command)

    def _write(self, command: c.Record) -> None:
        match command:
            case c.RecordRounds():
                self.observer.recorded(command)
            case c.RewindTables(round, evaluations):
                self.observer.rewound(round, evaluations, self.controller.incarnation)
            case c.RecordEvent():
                self.observer.event(command, self.now)
            case c.PublishManifest(name, manifest):
                generation = self.generation
                self.at(self.io_s(), lambda: self._publish(name, manifest, generation))
            case c.DeleteCheckpoint(name):
                self._manifests.pop(name, None)
                self.damaged.discard(name)
                self.observer.deleted(name)
            case _:
                assert_never(command)

    def _each(self, to: tuple[str, ...], action: Callable[[Process], None], twice: bool) -> None:
        """Send to each of these workers. Messages to one worker may arrive in any order, and twice."""
        for name in to:
            worker = self.workers.get(name)
            if worker is None:
                continue
            again = twice and self.random.random() < self.scenario.noise.twice
            for _ in range(1 + again):
                self.after(self.delay_s(), worker, partial(action, worker))

    def _startup_s(self, name: str) -> float:
        scenario = self.scenario
        up_s = scenario.cluster.up_s(worker_number(name), self.now, scenario.settings.workers_max)
        return (up_s - self.now) * self.random.uniform(1.0 - scenario.noise.sooner, 1.0)

    def _start(self, name: str, generation: int) -> None:
        if generation != self.generation or name not in self.controller.workers:
            return
        node = f"n{worker_number(name) // self.scenario.workers_a_node}"
        worker = self.workers[name] = self._hire(name, node, self)
        worker.start()

    def _kill_later(self, name: str) -> None:
        """End a worker after a delay: one that the driver can't reach goes on for a while."""
        worker = self.workers.get(name)
        if worker is not None:
            delay_s = self.zombies.get(name, self.random.choice((0.0, 0.1, 5.0)))
            self.at(delay_s, lambda: self.die(worker))

    def die(self, worker: Process, noticed: bool = True) -> None:
        if not worker.alive:
            return
        worker.frozen = False
        worker.alive = False
        worker.die()
        if noticed:
            self.notice(worker.name, "killed")

    def _publish(self, name: str, manifest: dict[str, Any], generation: int) -> None:
        if self.unpublished:
            self.unpublished = False
            self.hear(c.CheckpointFailed(name, "no space left"), generation)
            return
        if generation != self.generation:
            return
        self._manifests[name] = json.dumps(manifest)
        self.damaged.discard(name)  # an earlier driver may have used the name
        if name in self.controller.saves.writing:
            self.observer.checkpoint(snapshot_of(json.loads(self._manifests[name]), self._schedule), manifest)
        else:
            self._orphans.add(name)
        self.at(self.delay_s(), lambda: self.hear(c.CheckpointPublished(name), generation))

    @property
    def _schedule(self) -> Any:
        return self.scenario.settings.program.schedule

    def damage(self) -> None:
        """Damage the newest checkpoint."""
        self.damaged |= set(sorted(self._manifests)[-1:])

    def restart(self) -> None:
        """End the driver and every worker, and start a driver from the newest good checkpoint."""
        for worker in self.workers.values():
            self.die(worker, noticed=False)
        self.generation += 1
        self.network.generation += 1
        self.workers.clear()
        self._said.clear()
        self.journal.clear()
        good = sorted(set(self._manifests) - self._orphans - self.damaged)
        if self.damaged & set(self._manifests) and not good:
            self.finish = c.Finish("lost", "every checkpoint is damaged")
            return
        known = [snapshot_of(json.loads(self._manifests[name]), self._schedule) for name in good]
        resume, older = (known[-1], tuple(known[:-1])) if known else (None, ())
        taken = max((int(name) for name in self.damaged & set(self._manifests)), default=0)
        self.controller = self.journal_began = begin(
            self.scenario.settings, resume, self.generation + 1, older, taken
        )
        self._pulse = Pulse(self.scenario.settings.timeouts.beat_s, self.now)
        self.injector.restarted()
        self.observer.restarted(self.controller, self.now)
        self.advance(c.RunStarted())
        self.hear(c.NodesDraining(tuple(sorted(self.draining))), self.generation)
