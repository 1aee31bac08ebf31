"""A simulated training loop: the requests of a task's loop to its member, in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.deal import dealt_batches, scaled
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.member import events as m
from raysgd_local.control.member.machine import Member
from raysgd_local.control.messages import worker_number
from raysgd_local.simulation.engine.streams import Read, StreamPlan, StreamReader, by_epoch

Taken = tuple[int, tuple[int, ...]]
"""An epoch, and positions in the training set, or numbers of a stream's rows."""


@dataclass(frozen=True)
class Batch:
    """Compute a gradient over these samples."""

    taken: tuple[Taken, ...]


@dataclass(frozen=True)
class NoSample:
    """The list ends with these rows, of which no sample was made."""

    taken: tuple[Taken, ...]


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
    stream: StreamPlan | None = None  # read in place of a map-style set

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


Asks = Iterator[m.Event | Batch | NoSample | Exit]


def training_loop(plan: LoopPlan, worker: Trainee, reader: StreamReader | None = None) -> Asks:
    """Yield the loop's requests, one at a time. The caller carries out each before it draws the next.

    `reader`: reads the stream, if the plan has one.
    """
    yield m.LoopStarted(plan.epochs)
    number = worker_number(worker.name)
    while worker.member.loop_epoch < plan.epochs and not worker.member.done:
        epoch = worker.member.loop_epoch
        yield from _epoch(plan, worker, reader)
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


def _epoch(plan: LoopPlan, worker: Trainee, reader: StreamReader | None) -> Asks:
    if plan.stream is None and not plan.samples:
        yield from _own_data(plan, worker)
        return
    if plan.stream is None:
        yield m.EpochWanted(plan.samples)
    else:
        yield m.EpochWanted(0, shards=plan.stream.described)
    number = worker_number(worker.name)
    most = plan.early_batches if number in plan.early else -1  # batches that a probe gives again count too
    for batch, due in _Dealt(plan, worker, reader):
        if isinstance(batch, Batch) and most == 0:
            return
        if batch is not None:
            yield batch
        if isinstance(due, m.ListEnded):
            yield due
            continue
        most -= 1
        if worker.member.known.stopped:
            return
        _stop(plan, worker)
        yield from _exit(plan, worker)
        yield due


def _own_data(plan: LoopPlan, worker: Trainee) -> Asks:
    for _ in range(plan.own_steps + worker_number(worker.name) % 2):
        yield Batch(((0, ()),))
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
    """The batches of the present deal, as `ctx.batches` yields them, each with its step; or the list's end."""

    def __init__(self, plan: LoopPlan, worker: Trainee, reader: StreamReader | None) -> None:
        self._plan, self._worker, self._reader = plan, worker, reader
        self._dealt = (0, 0)
        self._batches: Iterator[tuple[int, Ints]] = iter(())

    def __iter__(self) -> Iterator[tuple[Batch | NoSample | None, m.StepDue | m.ListEnded]]:
        while self._seat():
            found = self._next()
            if found is not None:
                yield found
            elif self._worker.member.goes_on:
                return
            else:
                yield None, m.ListEnded()

    def _next(self) -> tuple[Batch | NoSample, m.StepDue | m.ListEnded] | None:
        if self._reader is not None:
            return _read(self._reader.next())
        batch = next(self._batches, None)
        if batch is None:
            return None
        positions = tuple(batch[1].tolist())
        return Batch(((batch[0], positions),)), m.StepDue(len(positions), len(positions))

    def _seat(self) -> bool:
        """Take over a new deal, if there is one. Return whether there may be more batches."""
        member = self._worker.member
        state, deal = member.known, member.in_force.deal
        if state.stopped or not state.open or deal is None:
            return False
        if isinstance(deal, StreamDeal):
            if self._reader is not None:
                self._reader.seat(member, deal, self._worker.undone)
            return True
        if (deal.number, self._worker.undone) != self._dealt:
            self._dealt = deal.number, self._worker.undone
            size = scaled(self._plan.batch_size, member.in_force.program.scale_of(member.rank))
            start = state.cursors[member.rank] + member.uncommitted.taken
            self._batches = dealt_batches(deal, member.rank, start, member.loop_epoch, size)
        return True


def _read(read: Read | None) -> tuple[Batch | NoSample, m.StepDue | m.ListEnded] | None:
    if read is None:
        return None
    batch = read.batch
    reached = m.StreamPosition(batch.split, batch.last)
    if not batch.count:
        return NoSample(by_epoch(read.consumed)), m.ListEnded(read.positions, reached)
    due = m.StepDue(batch.count, read.positions, reached=reached)
    return Batch(by_epoch(read.consumed)), due
