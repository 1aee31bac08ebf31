"""A simulated training loop: the requests of a task's loop to its member, in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.deal import dealt_batches, scaled
from raysgd_local.control.member import events as m
from raysgd_local.control.member.machine import Member
from raysgd_local.control.messages import worker_number


@dataclass(frozen=True)
class Batch:
    """Compute a gradient over these samples."""

    epoch: int
    positions: tuple[int, ...]  # in the training set


@dataclass(frozen=True)
class Exit:
    """The loop ends its process: by `sys.exit`, or the process dies (`killed`)."""

    killed: bool


@dataclass(frozen=True)
class LoopPlan:
    """The behaviour of the training loop."""

    epochs: int = 2
    samples: int = 64  # size of the training set; 0: the loop loads data of its own
    batch_size: int = 4
    evaluates: bool = True  # after each epoch
    early: tuple[int, ...] = ()  # numbers of workers that leave each epoch early
    early_batches: int = 1  # batches after which these leave
    own_steps: int = 5  # steps in an epoch of a loop with its own data; workers with odd numbers take one more
    stop_step: int = 0  # step at which worker 0 asks to end training; 0: never
    stop_epoch: int = 0  # all ask to end training after so many epochs, when the last one is evaluated; 0: never
    quits: tuple[int, ...] = ()  # numbers of workers whose loop ends after `quits_after` epochs
    quits_after: int = 1
    alone: tuple[int, ...] = ()  # numbers of workers that evaluate once more than the others, after each epoch
    exits: tuple[int, ...] = ()  # numbers of workers whose loop ends its process at step `exit_step`
    crashes: bool = False  # every worker's process dies at step `exit_step`
    exit_step: int = 0

    def differs(self) -> bool:
        """Whether ranks may wait for different things: an error of the loop."""
        return bool(self.alone) or (bool(self.quits) and self.evaluates)


class Trainee(Protocol):
    """The worker that runs the loop."""

    name: str
    steps: int  # taken by the loop

    @property
    def member(self) -> Member: ...

    @property
    def undone(self) -> int:
        """How often the loop was put back to batches that it had already been given."""
        ...

    def post(self, event: m.Event) -> None: ...


Asks = Iterator[m.Event | Batch | Exit]


def training_loop(plan: LoopPlan, worker: Trainee) -> Asks:
    """Yield the loop's requests, one at a time. The caller carries out each before it draws the next."""
    yield m.LoopStarted(plan.epochs)
    number = worker_number(worker.name)
    while worker.member.loop_epoch < plan.epochs and not worker.member.done:
        epoch = worker.member.loop_epoch
        yield from _epoch(plan, worker)
        for _ in range(plan.evaluates + (number in plan.alone)):
            yield from _leave(worker, epoch)
            yield m.EvaluationDue()
        if number in plan.quits and epoch + 1 >= plan.quits_after:
            break
        stops = 0 < plan.stop_epoch <= epoch + 1
        if stops:
            worker.post(m.StopAsked())
        yield from _leave(worker, epoch)
        if worker.member.loop_epoch == epoch and not worker.member.known.stopped:
            yield m.EpochWanted(0)
            yield m.EpochLeft()
        if stops and not worker.member.known.stopped and worker.member.loop_epoch < plan.epochs:
            yield m.EpochWanted(0)
    if not worker.member.known.epochs:
        yield m.EpochLeft()
    yield m.LoopFinished()


def _leave(worker: Trainee, epoch: int) -> Asks:
    """Leave this epoch, unless the loop has left it already."""
    if not worker.member.known.epochs or worker.member.epoch == epoch:
        yield m.EpochLeft()


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
            yield from _exit(plan, worker)
            yield m.StepDue(len(batch.positions), len(batch.positions))


def _own_data(plan: LoopPlan, worker: Trainee) -> Asks:
    for _ in range(plan.own_steps + worker_number(worker.name) % 2):
        yield Batch(0, ())
        if worker.member.known.stopped:
            return
        if not worker.member.known.open:
            yield m.EpochWanted(0)
        _stop(plan, worker)
        yield from _exit(plan, worker)
        yield m.StepDue(plan.batch_size, 0)


def _stop(plan: LoopPlan, worker: Trainee) -> None:
    if worker.name == "w0" and worker.steps == plan.stop_step:
        worker.post(m.StopAsked())


def _exit(plan: LoopPlan, worker: Trainee) -> Iterator[Exit]:
    if worker.steps == plan.exit_step and (plan.crashes or worker_number(worker.name) in plan.exits):
        yield Exit(plan.crashes)


class _Dealt:
    """The batches of the present deal, as `ctx.batches` yields them."""

    def __init__(self, plan: LoopPlan, worker: Trainee) -> None:
        self._plan, self._worker = plan, worker
        self._dealt = (0, 0)
        self._batches: Iterator[tuple[int, Ints]] = iter(())

    def __iter__(self) -> Iterator[Batch | m.ListEnded]:
        while self._seat():
            batch = next(self._batches, None)
            if batch is not None:
                yield Batch(batch[0], tuple(batch[1].tolist()))
            elif self._worker.member.goes_on:
                return
            else:
                yield m.ListEnded()

    def _seat(self) -> bool:
        """Take over a new deal, if there is one. Return whether there may be more batches."""
        member = self._worker.member
        state, deal = member.known, member.in_force.deal
        if state.stopped or not state.open or deal is None:
            return False
        if (deal.number, self._worker.undone) != self._dealt:
            self._dealt = deal.number, self._worker.undone
            size = scaled(self._plan.batch_size, member.in_force.program.scale_of(member.rank))
            start = state.cursors[member.rank] + member.uncommitted.taken
            self._batches = dealt_batches(deal, member.rank, start, member.loop_epoch, size)
        return True
