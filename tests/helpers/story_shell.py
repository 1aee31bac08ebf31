"""The shell under the stories: it carries words between the real controller and the real members.

It decides nothing. Words arrive at once and in order. A collective completes when all members of its view take part in
it; it fails for those that wait in it when one of them dies or the controller cuts the view. A worker's loop takes a
step when the story says so.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from story_text import Telling

from raysgd_local.control.control_slots import Control
from raysgd_local.control.controller import events as c
from raysgd_local.control.controller import machine as controller
from raysgd_local.control.member import events as m
from raysgd_local.control.member import machine as member
from raysgd_local.simulation.engine.loop import Batch, LoopPlan, training_loop

_LOCAL = (m.LocalStep, m.CopyState, m.Proceed)
"""Commands that ask nothing of the network and have no outcome."""


class StoryWorker:
    """One process: a member, its loop, and what the two wait for."""

    def __init__(self, name: str, plan: LoopPlan) -> None:
        self.name, self.member = name, member.Member(name)
        self.steps = self.undone = 0  # the loop's, which starts its list again when steps were undone
        self.loop = training_loop(plan, self)
        self.posted: list[m.Event] = []  # heard at the loop's next call
        self.orders: list[c.Form] = []
        self.at_batch = self.at_boundary = False
        self.call: m.Command | None = None
        self.called_s = 0.0
        self.copied: list[tuple[str, int]] = []
        self.announced = 0

    def post(self, event: m.Event) -> None:
        self.posted.append(event)

    @property
    def view(self) -> int:
        return self.member.order.view.number if self.member.order else 0


class StoryShell:
    """The driver, the workers' processes and the network. `telling` has what was said."""

    def __init__(self) -> None:
        self.telling = Telling()
        self.now = 0.0
        self.workers: dict[str, StoryWorker] = {}
        self.cut: set[int] = set()
        self.withheld: set[str] = set()
        self.timers: list[tuple[float, int]] = []
        self.manifests: dict[str, str] = {}
        self.damaged: set[str] = set()
        self._queue: deque[Callable[[], None]] = deque()

    def later(self, action: Callable[[], None]) -> None:
        """Do it after all that is to be done already."""
        self._queue.append(action)

    def settle(self) -> None:
        """Until nothing happens any more."""
        while self._queue:
            self._queue.popleft()()

    # The driver.

    def tell(self, event: c.Event, source: str = "driver") -> None:
        self.later(lambda: self._told(event, source))

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

    def _each(self, to: tuple[str, ...], action: Callable[[StoryWorker], None]) -> None:
        for worker in [self.workers[name] for name in to if name in self.workers]:
            action(worker)

    def _give(self, worker: StoryWorker, form: c.Form) -> None:
        worker.orders.append(form)
        if worker.at_boundary:
            self.later(lambda: self._order(worker))

    def _cut(self, worker: StoryWorker, view: int, why: str) -> None:
        worker.post(m.Cut(view, why))
        self.cut.add(view)
        if worker.call is not None and worker.view == view:
            self._fail(worker, why)

    # A worker.

    def go_on(self, worker: StoryWorker) -> None:
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

    def step(self, worker: StoryWorker) -> None:
        worker.at_batch = False
        worker.steps += 1
        self.later(lambda: self.go_on(worker))

    def batching(self) -> list[StoryWorker]:
        return [worker for worker in self.workers.values() if worker.at_batch]

    def _advance(self, worker: StoryWorker, source: str, event: m.Event) -> None:
        if self.workers.get(worker.name) is not worker:
            return
        posted, worker.posted = worker.posted, []
        for one in [*posted, event]:
            worker.member, commands = member.advance(worker.member, one)
            self.telling.member(source if one is event else "outside", worker.name, one, commands)
            for command in commands:
                self._do(worker, command)

    def _do(self, worker: StoryWorker, command: m.Command) -> None:
        match command:
            case m.Proceed():
                self.later(lambda: self.go_on(worker))
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
                worker.call, worker.called_s = command, self.now
                self._meet(worker)

    def _order(self, worker: StoryWorker) -> None:
        if worker.at_boundary and worker.orders:
            worker.at_boundary = False
            form = worker.orders.pop(0)
            self.later(lambda: self._advance(worker, "controller", m.Ordered(form.order)))

    def _committed(self, worker: StoryWorker) -> None:
        if worker.announced != worker.view:
            worker.announced = worker.view
            self.tell(c.Progress(worker.name, worker.view, worker.member.known.round, worker.steps), worker.name)

    def _ended(self, worker: StoryWorker) -> None:
        self.end(worker.name)
        self.tell(c.Died(worker.name, "its loop ended"))

    def end(self, name: str) -> None:
        worker = self.workers.pop(name, None)
        if worker is not None:
            self._leave(worker)

    # The network.

    def _meet(self, worker: StoryWorker) -> None:
        """A collective completes when all members of the view are in it."""
        members = worker.member.in_force.view.members
        there = [self.workers[name] for name in members if name in self.workers]
        if worker.view in self.cut or len(there) < len(members):
            self._fail(worker, "a peer left")
            return
        if any(other.call is None or other.view != worker.view for other in there):
            return
        if len({type(other.call) for other in there}) > 1:
            raise AssertionError(f"members are in different collectives: {[other.call for other in there]}")
        said = [getattr(other.call, "said", None) for other in there]
        control = (
            None if said[0] is None else Control(tuple(replace(one, clock_s=1.0, loss_sum=1.0) for one in said))
        )
        for other in there:
            if other.name not in self.withheld:
                done = None if control is None else m.Exchanged(other.view, control, 0.1)
                self._outcome(other, done)
        self.withheld -= set(members)

    def _outcome(self, worker: StoryWorker, event: m.Event | None) -> None:
        if event is None and getattr(worker.call, "behind", False):
            worker.undone += 1  # what came after the round that it missed is taken again
        worker.call = None
        event = event or m.Done(worker.view)
        self.later(lambda: self._advance(worker, "network", event))

    def _fail(self, worker: StoryWorker, why: str) -> None:
        self._outcome(worker, m.Failed(worker.view, why))

    def _leave(self, gone: StoryWorker) -> None:
        """Whoever waits for it in a collective waits in vain."""
        if gone.member.order is None:
            return
        self.cut.add(gone.view)
        gone.call = None
        for worker in self.workers.values():
            if worker.view == gone.view and worker.call is not None:
                self._fail(worker, f"lost {gone.name}")
