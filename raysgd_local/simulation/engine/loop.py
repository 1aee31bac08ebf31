"""A training loop as the members see it: what `ctx` asks for, in the order in which a task asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from raysgd_local.control.data.deal import batch_bounds, lists, scaled
from raysgd_local.control.member import events as m
from raysgd_local.control.member.machine import Member
from raysgd_local.control.messages import worker_number


@dataclass(frozen=True)
class Batch:
    """Compute a gradient over these positions of the training set."""

    epoch: int
    positions: tuple[int, ...]


@dataclass(frozen=True)
class LoopPlan:
    """What the loop does. Workers whose number is in `early` break after `early_batches` batches of an epoch.

    Worker 0 asks all to stop at its step `stop_step`. With `samples` of 0 the loop takes no data from us, and a
    number of steps that only it knows.
    """

    epochs: int = 2
    samples: int = 64
    batch_size: int = 4
    evaluates: bool = True
    early: tuple[int, ...] = ()
    early_batches: int = 1
    own_steps: int = 5
    stop_step: int = 0


class Trainee(Protocol):
    """Who runs the loop."""

    name: str
    steps: int

    @property
    def member(self) -> Member: ...

    @property
    def undone(self) -> int:
        """Times that it was put back to batches that it had been given."""
        ...

    def post(self, event: m.Event) -> None: ...


Asks = Iterator[m.Event | Batch]


def training_loop(plan: LoopPlan, worker: Trainee) -> Asks:
    """Yields what the loop asks for; it goes on when that is done."""
    yield m.LoopStarted(plan.epochs)
    while not worker.member.known.stopped and worker.member.known.epoch < plan.epochs:
        epoch = worker.member.known.epoch
        yield from _epoch(plan, worker)
        if plan.evaluates:
            yield m.EpochLeft()
            yield m.EvaluationDue()
        yield m.EpochLeft()
        if worker.member.known.epoch == epoch and not worker.member.known.stopped:
            yield m.EpochWanted(0)
            yield m.EpochLeft()
    yield m.EpochLeft()
    yield m.LoopFinished()


def _epoch(plan: LoopPlan, worker: Trainee) -> Asks:
    if not plan.samples:
        yield from _own_data(plan, worker)
        return
    yield m.EpochWanted(plan.samples)
    number = worker_number(worker.name)
    most = plan.early_batches if number in plan.early else -1  # batches that a probe gives again count too
    for batch in _Dealt(plan, worker):
        if isinstance(batch, m.ListEnded):
            yield batch
        elif most == 0:
            return
        else:
            most -= 1
            yield batch
            if worker.member.known.stopped:
                return
            _stop(plan, worker)
            yield m.StepDue(len(batch.positions), len(batch.positions))


def _own_data(plan: LoopPlan, worker: Trainee) -> Asks:
    for _ in range(plan.own_steps + worker_number(worker.name) % 2):
        yield Batch(0, ())
        if worker.member.known.stopped:
            return
        if not worker.member.known.open:
            yield m.EpochWanted(0)
        _stop(plan, worker)
        yield m.StepDue(plan.batch_size, 0)


def _stop(plan: LoopPlan, worker: Trainee) -> None:
    if worker.name == "w0" and worker.steps == plan.stop_step:
        worker.post(m.StopAsked())


class _Dealt:
    """Batches of the present deal, as `ctx.batches` gives them."""

    def __init__(self, plan: LoopPlan, worker: Trainee) -> None:
        self._plan, self._worker = plan, worker
        self._dealt = (0, 0)
        self._batches: Iterator[tuple[int, ...]] = iter(())

    def __iter__(self) -> Iterator[Batch | m.ListEnded]:
        while (epoch := self._seat()) is not None:
            positions = next(self._batches, None)
            yield m.ListEnded() if positions is None else Batch(epoch, positions)

    def _seat(self) -> int | None:
        """Go on where the deal that holds now says; None where the epoch is over."""
        member = self._worker.member
        state, deal = member.known, member.in_force.deal
        if state.stopped or not state.open or deal is None:
            return None
        if (deal.number, self._worker.undone) != self._dealt:
            self._dealt = deal.number, self._worker.undone
            positions = lists(deal)[member.rank]
            size = scaled(self._plan.batch_size, member.in_force.program.scale_of(member.rank))
            start = state.cursors[member.rank] + member.uncommitted.taken
            bounds = batch_bounds(len(positions), start, size)
            self._batches = iter([tuple(positions[a:b].tolist()) for a, b in bounds])
        return deal.epoch
