"""Stories: the real controller and the real members, driven by a few commands, told line by line.

The shell here is trivial and decides nothing. Words arrive at once and in order. A collective completes when all
members of its view take part in it; it fails for those that wait in it when one of them dies or the controller cuts
the view. A worker's loop takes a step when the story says so.
"""

from __future__ import annotations

import json
import shlex
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from story_text import Telling

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.control_slots import Control
from raysgd_local.control.controller import events as c
from raysgd_local.control.controller import machine as controller
from raysgd_local.control.controller.checkpoints import snapshot_of
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings
from raysgd_local.control.controller.state import begin
from raysgd_local.control.member import events as m
from raysgd_local.control.member import machine as member
from raysgd_local.control.replicated.program import Program
from raysgd_local.simulation.engine.loop import Batch, LoopPlan, training_loop

_LOCAL = (m.LocalStep, m.CopyState, m.Proceed)
"""Commands that ask nothing of the network and have no outcome."""


class Worker:
    """One process: a member, its loop, and what the two wait for."""

    def __init__(self, name: str, plan: LoopPlan) -> None:
        self.name, self.member = name, member.Member(name)
        self.steps = self.undone = 0  # the loop's, which starts its list again when steps were undone
        self.loop = training_loop(plan, self)
        self.posted: list[m.Event] = []  # heard at the loop's next call
        self.orders: list[c.Form] = []
        self.at_batch = self.at_boundary = False
        self.call: m.Command | None = None
        self.copied: list[tuple[str, int]] = []
        self.announced = 0

    def post(self, event: m.Event) -> None:
        self.posted.append(event)

    @property
    def view(self) -> int:
        return self.member.order.view.number if self.member.order else 0


class Story:
    """Obeys a story's commands. `telling` has what was said meanwhile."""

    def __init__(self) -> None:
        self.telling = Telling()
        self.now = 0.0
        self.workers: dict[str, Worker] = {}
        self.cut: set[int] = set()
        self.withheld: set[str] = set()
        self.timers: list[tuple[float, int]] = []
        self.manifests: dict[str, str] = {}
        self.damaged: set[str] = set()
        self._queue: deque[Callable[[], None]] = deque()

    def obey(self, line: str) -> str:
        """What one command brings about, as text."""
        words = shlex.split(line)
        quiet, words = words[0] == "quietly", words[words[0] == "quietly" :]
        options = dict(word.split("=") for word in words[1:] if "=" in word)
        names = [word for word in words[1:] if "=" not in word]
        getattr(self, f"do_{words[0]}")(*names, **options)
        while self._queue:
            self._queue.popleft()()
        told = self.telling.take()
        return "" if quiet else told

    # Commands of a story.

    def do_start(
        self, workers, min=1, tau=2, samples=24, batch=2, epochs=1, every_epochs=0, every_s=0, **settings
    ):
        """A run is asked for; no worker is there yet."""
        policy = CheckpointPolicy(int(every_epochs) or None, float(every_s) or None)
        numbers = {name: int(value) for name, value in settings.items()}
        program = Program(FixedPeriod(int(tau)))
        self.settings = Settings(program, int(min), int(workers), checkpoints=policy, **numbers)
        self.plan = LoopPlan(int(epochs), int(samples), int(batch), evaluates=False)
        self.controller = begin(self.settings)
        self.tell(c.RunStarted())

    def do_up(self, *names):
        """Processes of requested workers run, their loops come to the first epoch."""
        for name in names:
            worker = self.workers[name] = Worker(name, self.plan)
            self.tell(c.WorkerUp(name, f"node{name[1:]}", 1))
            self._queue.append(lambda worker=worker: self.go_on(worker))

    def do_step(self, *names):
        """These workers' loops take one step each."""
        for name in names:
            self.step(self.workers[name])

    def do_round(self):
        """All loops take steps until each has committed one round more, or waits for something else."""
        known = {w.name: w.member.known.round for w in self.workers.values() if w.at_batch}
        while stepping := [w for w in self._batching() if w.member.known.round == known.get(w.name)]:
            for worker in stepping:
                self.step(worker)
            self._settle()

    def do_train(self):
        """All loops take steps until none can any more."""
        while stepping := self._batching():
            for worker in stepping:
                self.step(worker)
            self._settle()

    def do_withhold(self, *names):
        """The result of the next collective does not reach these members."""
        self.withheld |= set(names)

    def do_kill(self, *names):
        for name in names:
            self.end(name)
            self.tell(c.Died(name, "killed"))

    def do_raise(self, name, error):
        """User code raises; the process ends."""
        self.tell(c.UserError(name, error), name)
        self.end(name)

    def do_sigterm(self, name):
        self.workers[name].post(m.LeaveAsked())

    def do_interrupt(self):
        self.tell(c.StopRequested("interrupted"))

    def do_heartbeat(self, **silent_s):
        """The driver looks at the signs of life: all workers are heard but these, silent for so many seconds."""
        signs = (c.SignOfLife(w, float(silent_s.get(w, 0.1)), 0.25, round_s=0.5) for w in self.workers)
        self.tell(c.Heartbeat(tuple(signs), awake_s=60.0, hears_s=60.0))

    def do_advance(self, seconds):
        """Time passes, and timers run out."""
        self.now += float(seconds.rstrip("s"))
        for due, number in sorted(self.timers):
            if due <= self.now and number in self.controller.timers.values():
                self.tell(c.Timer(number))

    def do_write(self, *names, fails=""):
        """Parts of checkpoints are written; on worker `fails` that fails."""
        for worker in [self.workers[name] for name in names] or list(self.workers.values()):
            for checkpoint, rank in worker.copied:
                written = c.ShardWritten(checkpoint, worker.name, rank, f"{checkpoint}/{rank}", "", 1)
                failed = c.CheckpointFailed(checkpoint, "no space left on device")
                self.tell(failed if worker.name == fails else written, worker.name)
            worker.copied = []

    def do_damage(self, checkpoint):
        """A file of this checkpoint is not any more what was written."""
        self.damaged.add(checkpoint)

    def do_driver(self, dies):
        """The driver dies, its workers with it. Another one resumes from the newest checkpoint that stands."""
        for name in list(self.workers):
            self.end(name)
        newest = max(self.manifests.keys() - self.damaged)
        resume = snapshot_of(json.loads(self.manifests[newest]), self.settings.program.schedule)
        self.controller = begin(self.settings, resume)
        self.timers, self.cut = [], set()
        self.tell(c.RunStarted())

    # The driver.

    def tell(self, event: c.Event, source: str = "driver") -> None:
        self._queue.append(lambda: self._told(event, source))

    def _told(self, event: c.Event, source: str) -> None:
        timers = {number: name for name, number in self.controller.timers.items()}
        self.controller, commands = controller.advance(self.controller, event, self.now)
        timers |= {number: name for name, number in self.controller.timers.items()}
        self.telling.controller(event, source, commands, timers)
        for command in commands:
            self._run(command)

    def _run(self, command: c.Command) -> None:
        match command:
            case c.KillWorker(worker):
                self.end(worker)
            case c.Form(_, to):
                self._each(to, lambda worker: self._give(worker, command))
            case c.Yield(view, segment, to):
                self._each(to, lambda worker: worker.post(m.YieldAsked(view, segment)))
            case c.CutView(view, to, why):
                self._each(to, lambda worker: self._cut(worker, view, why))
            case c.SetTimer(number, delay_s):
                self.timers.append((self.now + delay_s, number))
            case c.PublishManifest(name, manifest):
                self.manifests[name] = json.dumps(manifest)
                self.tell(c.CheckpointPublished(name))
            case c.DeleteCheckpoint(name):
                self.manifests.pop(name, None)

    def _each(self, to: tuple[str, ...], action: Callable[[Worker], None]) -> None:
        for worker in [self.workers[name] for name in to if name in self.workers]:
            action(worker)

    def _give(self, worker: Worker, form: c.Form) -> None:
        worker.orders.append(form)
        if worker.at_boundary:
            self._queue.append(lambda: self._order(worker))

    def _cut(self, worker: Worker, view: int, why: str) -> None:
        worker.post(m.Cut(view, why))
        self.cut.add(view)
        if worker.call is not None and worker.view == view:
            self._fail(worker, why)

    # A worker.

    def go_on(self, worker: Worker) -> None:
        """The loop runs until it asks for something; what it computes from a batch is a story's `step`."""
        if worker.name not in self.workers:
            return
        ask = next(worker.loop, None)
        if ask is None:
            self._ended(worker)
        elif isinstance(ask, Batch):
            worker.at_batch = True
        else:
            self._advance(worker, "loop", ask)

    def step(self, worker: Worker) -> None:
        worker.at_batch = False
        worker.steps += 1
        self._queue.append(lambda: self.go_on(worker))

    def _batching(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.at_batch]

    def _settle(self) -> None:
        while self._queue:
            self._queue.popleft()()

    def _advance(self, worker: Worker, source: str, event: m.Event) -> None:
        posted, worker.posted = worker.posted, []
        for one in [*posted, event]:
            worker.member, commands = member.advance(worker.member, one)
            self.telling.member(source if one is event else "outside", worker.name, one, commands)
            for command in commands:
                self._do(worker, command)

    def _do(self, worker: Worker, command: m.Command) -> None:
        match command:
            case m.Proceed():
                self._queue.append(lambda: self.go_on(worker))
            case m.Arrive(report):
                if report.broken:
                    self._leave(worker)
                self.tell(c.Arrived(report), worker.name)
                worker.at_boundary = True
                self._order(worker)
            case m.CopyState(save):
                if save.everyone or worker.member.rank == 0:
                    worker.copied.append((save.name, worker.member.rank))
            case m.Commit():
                self._committed(worker)
            case m.Restore(name):
                self._outcome(worker, m.Failed(worker.view, "damaged", name) if name in self.damaged else None)
            case m.Exit():
                self._ended(worker)
            case _ if not isinstance(command, _LOCAL):
                worker.call = command
                self._meet(worker)

    def _order(self, worker: Worker) -> None:
        if worker.at_boundary and worker.orders:
            worker.at_boundary = False
            form = worker.orders.pop(0)
            self._queue.append(lambda: self._advance(worker, "controller", m.Ordered(form.order)))

    def _committed(self, worker: Worker) -> None:
        if worker.announced != worker.view:
            worker.announced = worker.view
            self.tell(c.Progress(worker.name, worker.view, worker.member.known.round, worker.steps), worker.name)

    def _ended(self, worker: Worker) -> None:
        self.end(worker.name)
        self.tell(c.Died(worker.name, "its loop ended"))

    def end(self, name: str) -> None:
        worker = self.workers.pop(name, None)
        if worker is not None:
            self._leave(worker)

    # The network.

    def _meet(self, worker: Worker) -> None:
        """A collective completes when all members of the view are in it."""
        members = worker.member.in_force.view.members
        there = [self.workers[name] for name in members if name in self.workers]
        if worker.view in self.cut or len(there) < len(members):
            self._fail(worker, "a peer left")
            return
        if any(other.call is None or other.view != worker.view for other in there):
            return
        said = [getattr(other.call, "said", None) for other in there]
        control = (
            None if said[0] is None else Control(tuple(replace(one, clock_s=1.0, loss_sum=1.0) for one in said))
        )
        for other in there:
            if other.name not in self.withheld:
                done = None if control is None else m.Exchanged(other.view, control, 0.1)
                self._outcome(other, done)
        self.withheld -= set(members)

    def _outcome(self, worker: Worker, event: m.Event | None) -> None:
        if worker.call is not None and getattr(worker.call, "behind", False):
            worker.undone += 1  # what came after the round that it missed is taken again
        worker.call = None
        event = event or m.Done(worker.view)
        self._queue.append(lambda: self._advance(worker, "network", event))

    def _fail(self, worker: Worker, why: str) -> None:
        self._outcome(worker, m.Failed(worker.view, why))

    def _leave(self, gone: Worker) -> None:
        """Whoever waits for it in a collective waits in vain."""
        if gone.member.order is None:
            return
        self.cut.add(gone.view)
        gone.call = None
        for worker in self.workers.values():
            if worker.view == gone.view and worker.call is not None:
                self._fail(worker, f"lost {gone.name}")
