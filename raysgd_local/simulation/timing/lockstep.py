"""Only time: thousands of workers in lockstep, without learning and without faults.

Where nobody fails all members of a view decide alike, from the same reduced values. So one real member stands for
all, under the real controller; what differs between workers, how long they compute, is drawn for each.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import assert_never

import numpy as np

from raysgd_local.algorithms.learning_rate import LearningRate
from raysgd_local.control.control_slots import SLOT, Contribution, Control
from raysgd_local.control.controller import events as c
from raysgd_local.control.controller import machine as controller
from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings
from raysgd_local.control.controller.state import begin
from raysgd_local.control.data.deal import batch_bounds
from raysgd_local.control.member import events as m
from raysgd_local.control.member import machine
from raysgd_local.control.messages import Order, Report
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import extent
from raysgd_local.errors import InputError
from raysgd_local.records import RoundRow
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.cluster.loss_curve import HalvingLoss, LossCurve
from raysgd_local.simulation.cluster.step_times import Floats
from raysgd_local.simulation.engine.interruption import interruptible
from raysgd_local.simulation.engine.loop import Batch, LoopPlan, training_loop
from raysgd_local.simulation.engine.world import Observer

_DEALT_UP_TO = 256  # workers


@dataclass(frozen=True)
class TimingPlan:
    """`workers` workers run `loop` on `cluster`; `state_bytes` is what an averaging reduces, without its slots.

    The training loss goes as `loss` says, the learning rate is `lr` times what `learning_rate` says of the epochs
    that are done.
    """

    program: Program
    workers: int
    cluster: ClusterModel
    loop: LoopPlan
    state_bytes: int = 4_000_000
    loss: LossCurve = field(default_factory=lambda: HalvingLoss(100_000))
    learning_rate: LearningRate = LearningRate()
    lr: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.program.averaging.fraction < 1:
            raise InputError(
                "algorithm.averaging.fraction",
                self.program.averaging.fraction,
                "1 where only time is simulated",
                "one worker stands for all there, and all take the same steps",
            )
        if self.program.probes:
            raise InputError(
                "algorithm.schedule.when",
                "stability",
                "epoch, first-decay or loss where only time is simulated",
                "what comes of trying local steps is not known where nothing is learned",
            )
        failures = self.cluster.failures
        if failures.deaths_per_hour or failures.preemptions_per_hour:
            raise InputError("cluster.failures", failures, "no failures where only time is simulated")
        if self.cluster.arrivals_s:
            raise InputError("cluster.arrivals_s", self.cluster.arrivals_s, "none where only time is simulated")


@dataclass(frozen=True)
class TimedRun:
    """How it ended, after how many virtual `seconds`: the rows of `rounds.csv` that such a run would write, times
    virtual, and the run's books.
    """

    rows: tuple[RoundRow, ...]
    finish: c.Finish
    seconds: float
    books: Books | None


def loop_over(samples: int, epochs: int, batch_size: int, workers: int) -> LoopPlan:
    """A task's loop over a training set of `samples`.

    For very many workers samples are not dealt one by one, which takes longer than all else: each takes as many
    steps as the longest list has batches, and each epoch ends with an averaging of its own.
    """
    if workers <= _DEALT_UP_TO:
        return LoopPlan(epochs, samples, batch_size, evaluates=False)
    steps = len(batch_bounds(-(-samples // workers), 0, batch_size))
    return LoopPlan(epochs, 0, batch_size, evaluates=False, own_steps=steps)


def simulate_timing(plan: TimingPlan, observer: Observer | None = None) -> TimedRun:
    """Run it; `observer` is told what would be recorded. Ctrl-C ends it after a round."""
    fleet = _Lockstep(plan, observer or Observer())
    with interruptible(fleet.interrupt):
        finish = fleet.run()
    return TimedRun(tuple(fleet.rows), finish, fleet.now, fleet.controller.books)


@dataclass(frozen=True)
class _Flight:
    """A reduction under way: when each worker began it, and when it is there."""

    view: int
    control: Control
    began: Floats
    arrives: float


@dataclass(frozen=True)
class _Ahead:
    """Steps of the open round that were taken while the last reduction travelled, how long they took each worker, and
    how long before `now` each was done with all (0 or less).
    """

    steps: int
    compute_s: Floats
    behind_s: Floats


class _Lockstep:
    """All members as one; `now` is the time of all."""

    name = "w0"

    def __init__(self, plan: TimingPlan, observer: Observer) -> None:
        self._plan, self._observer = plan, observer
        self._random = np.random.default_rng(plan.seed)
        settings = Settings(
            plan.program,
            plan.workers,
            plan.workers,
            seed=plan.seed,
            checkpoints=CheckpointPolicy(every_epochs=None, last=False),
        )
        self.controller = begin(settings)
        self.member = machine.Member(self.name)
        self.steps = self.undone = 0
        self._events: deque[m.Event] = deque()
        self._speeds = np.array([plan.cluster.speed(number) for number in range(plan.workers)])
        loop = plan.loop
        self._epoch_samples = loop.samples or loop.own_steps * loop.batch_size * plan.workers
        self._told = np.zeros(plan.workers)  # when each began its newest exchange
        self._sent_bytes = 0
        self._flight: _Flight | None = None
        self._ahead = _Ahead(0, np.zeros(plan.workers), np.zeros(plan.workers))
        self._finish: c.Finish | None = None
        self._started = self._interrupted = False
        self.now = 0.0
        self.rows: list[RoundRow] = []

    def run(self) -> c.Finish:
        """From the request of workers to the end."""
        self._tell(c.RunStarted())
        self.now += self._plan.cluster.startup_s
        for number in range(self._plan.workers):
            self._tell(c.WorkerUp(f"w{number}", self._node(number), number))
        for ask in training_loop(self._plan.loop, self):
            if self._finish is not None:
                return self._finish
            if isinstance(ask, Batch):
                self.steps += 1
                continue
            if self._interrupted:
                self._interrupted = False
                self._tell(c.StopRequested("interrupted"))
            if isinstance(ask, m.EpochWanted) and not self._started:
                self._started = True
                self._told[:] = self.now  # training time begins with the first batch
                self.now += self._plan.cluster.warmup_s
            self.post(ask)
            self._pump()
        if self._finish is None:
            raise RuntimeError("the loop is over and the run is not")
        return self._finish

    def interrupt(self) -> None:
        """Someone at the terminal wants it to end. A signal's handler may call this."""
        self._interrupted = True

    def _node(self, number: int) -> str:
        nodes = self._plan.cluster.nodes
        return f"n{number // nodes.workers if nodes is not None else number}"

    def post(self, event: m.Event) -> None:
        """Something for the member to handle."""
        self._events.append(event)

    def _pump(self) -> None:
        while self._events and self._finish is None:
            self.member, commands = machine.advance(self.member, self._events.popleft())
            for command in commands:
                self._run(command)

    def _tell(self, event: c.Event) -> None:
        self.controller, commands = controller.advance(self.controller, event, self.now)
        for command in commands:
            match command:
                case c.Form(order):
                    self._obey(order)
                case c.Yield(view, segment):
                    self.post(m.YieldAsked(view, segment))
                case c.RecordRounds(rounds):
                    self.rows += rounds
                    self._observer.recorded(command)
                case c.RecordEvent():
                    self._observer.event(command, self.now)
                case c.Finish():
                    self._finish = command
                case c.RequestWorker() | c.KillWorker() | c.CutView() | c.SetTimer():
                    pass  # all workers start at once and none dies, so no timer matters
                case c.RewindTables() | c.PublishManifest() | c.DeleteCheckpoint():
                    pass  # no checkpoint is taken
                case _:
                    assert_never(command)

    def _obey(self, order: Order) -> None:
        self.now += self._plan.cluster.latency_s
        self._events.append(m.Ordered(order))

    def _run(self, command: m.Command) -> None:
        cluster, workers = self._plan.cluster, self._plan.workers
        match command:
            case m.Arrive(report):
                self._arrive(report)
            case m.Exchange():
                self._exchange(command)
                self._collect(0)
            case m.Launch(exchange):
                self._exchange(exchange)
            case m.Collect():
                self._collect(self.member.steps)
            case m.Commit():
                self._commit()
            case m.Connect(view):
                self.now += cluster.latency_s
                self._events.append(m.Done(view))
            case m.Transfer() | m.Heal() | m.Align():
                self.now += cluster.broadcast_s(self._plan.state_bytes, workers)
                self._events.append(m.Done(self.member.in_force.view.number))
            case m.Exit():
                self._leave()
            case m.LocalStep() | m.Proceed():
                pass  # a local step is part of the round's time
            case m.AverageProbe() | m.Mark() | m.Look() | m.ShowMean() | m.Undo():
                raise RuntimeError("programs with probes are refused")
            case m.Evaluate() | m.Restore() | m.Fetch() | m.CopyState():
                raise RuntimeError(
                    "no loop here evaluates, and no run has checkpoints or data of its workers' own"
                )
            case _:
                assert_never(command)

    def _commit(self) -> None:
        self.now += self._plan.cluster.round_s
        if not self.controller.formed:
            state = self.member.known
            self._tell(c.Progress(self.name, self.member.in_force.view.number, state.round, state.steps))

    def _leave(self) -> None:
        for number in range(self._plan.workers):
            self._tell(c.Died(f"w{number}", "its loop ended"))

    def _arrive(self, report: Report) -> None:
        """One report tells the rounds for all."""
        self.now += self._plan.cluster.latency_s
        other = replace(report, rounds=(), changes=(), wire_bytes=self._sent_bytes)
        self._tell(c.Arrived(replace(report, wire_bytes=self._sent_bytes)))
        for number in range(1, self._plan.workers):
            self._tell(c.Arrived(replace(other, worker=f"w{number}")))
        self._sent_bytes = 0

    def _exchange(self, command: m.Exchange) -> None:
        """All compute, the last to come begins the reduction."""
        said, ahead = command.said, self._ahead
        drawn = self._computing(said.steps - ahead.steps)
        began = self.now + ahead.behind_s + drawn  # (workers,)
        control = self._control(said, ahead.compute_s + drawn, began - self._told)
        exchange_s, self._sent_bytes = self._cost(control, command.mode == "partial")
        self._flight = _Flight(command.view, control, began, float(began.max()) + exchange_s)
        self._told = began

    def _collect(self, steps: int) -> None:
        """What was begun is needed, `steps` steps later; it may be there already."""
        flight = self._flight
        if flight is None:
            raise RuntimeError("nothing was begun")
        compute_s = self._computing(steps)
        ready = flight.began + compute_s
        free = np.maximum(ready, flight.arrives)
        self.now, self._flight = float(free.max()), None
        self._ahead = _Ahead(steps, compute_s, free - self.now)
        waited_s = float(max(0.0, flight.arrives - ready[0]))
        self._events.append(m.Exchanged(flight.view, flight.control, waited_s))

    def _computing(self, steps: int) -> Floats:
        """Seconds that so many steps take each worker, (workers,)."""
        shape = (self._plan.workers, steps)
        seconds: Floats = self._plan.cluster.steps.draw(self._random, shape).sum(axis=1) / self._speeds
        return seconds

    def _cost(self, control: Control, partial: bool) -> tuple[float, int]:
        """Seconds that a reduction takes, and the bytes that a member sends."""
        plan, cluster, workers = self._plan, self._plan.cluster, self._plan.workers
        slots_bytes = 4 * SLOT * workers
        reach = extent(self.member.known, control, plan.program)
        if not partial or reach.whole:
            size_bytes = plan.state_bytes + slots_bytes
            hearing_s = cluster.reduction_s(slots_bytes, workers) if partial else 0.0
            seconds = cluster.reduction_s(size_bytes - slots_bytes * partial, workers) + hearing_s
            return seconds, 2 * size_bytes * (workers - 1) // workers
        hearing_s = cluster.reduction_s(slots_bytes, workers) + cluster.reduction_s(
            4, workers
        )  # slots, and a vote
        if plan.program.averaging.gossips:
            near = plan.program.averaging.neighbours(0, self.member.known.round + 1, workers) or ()
            return hearing_s + len(near) * cluster.link.message_s(plan.state_bytes), len(near) * plan.state_bytes
        block = max(Counter(reach.blocks).values())
        return hearing_s + cluster.reduction_s(plan.state_bytes, block), 2 * plan.state_bytes * (
            block - 1
        ) // block

    def _control(self, said: Contribution, compute: Floats, clock: Floats) -> Control:
        plan, state = self._plan, self.member.known
        loss = plan.loss.loss(state.samples + said.samples * plan.workers / 2)
        epochs = state.samples / self._epoch_samples
        said = replace(
            said,
            lr=plan.lr * plan.learning_rate.factor(epochs),
            lr_decay=plan.learning_rate.decay(epochs),
            wire_bytes=self._sent_bytes,
        )
        each = zip(compute.tolist(), clock.tolist(), self._consumed(said.consumed), strict=True)
        return Control(tuple(_contribution(said, loss, *own) for own in each))

    def _consumed(self, first: int) -> list[int]:
        """What each consumes where the first one consumes `first`: lists may differ by one sample."""
        state = self.member.known
        if state.lengths is None:
            return [0] * self._plan.workers
        left = [length - cursor for length, cursor in zip(state.lengths, state.cursors, strict=True)]
        return left if first >= left[0] else [min(first, rest) for rest in left]


def _contribution(
    said: Contribution, loss: float, compute_s: float, clock_s: float, consumed: int
) -> Contribution:
    samples = consumed or said.samples
    return Contribution(
        weight=float(samples),
        loss_sum=loss * samples,
        steps=said.steps,
        samples=samples,
        consumed=consumed,
        compute_s=compute_s,
        clock_s=clock_s,
        lr=said.lr,
        lr_decay=said.lr_decay,
        wire_bytes=said.wire_bytes,
        flags=said.flags,
    )
