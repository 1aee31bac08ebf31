"""Streams in simulated loops: rows that are numbers, read by the code that reads real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate, chain, repeat
from typing import Any

import numpy as np

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.deal import scaled
from raysgd_local.control.data.streams.deal import Pending, StreamDeal, known_lengths
from raysgd_local.control.data.streams.lengths import Lengths, merged, with_lengths
from raysgd_local.control.data.streams.parts import PART
from raysgd_local.control.data.streams.ranges import ROWS, Ranges
from raysgd_local.control.data.streams.shards import Shards
from raysgd_local.control.member.machine import Member
from raysgd_local.simulation.engine.violation import violated
from raysgd_local.sources.measuring import measured
from raysgd_local.sources.packing import Pack
from raysgd_local.sources.source import shard_names
from raysgd_local.sources.transform import Step
from raysgd_local.training.streams.across_epochs import Batches, list_batches
from raysgd_local.training.streams.batching import StreamBatch, batches
from raysgd_local.training.streams.rows import ListRows

_PACKED = 5  # numbers in a packed sample

_EPOCH = 12_000_000  # a row of an epoch is this times the epoch, plus its number: transforms do the same in each


@dataclass(frozen=True)
class StreamPlan:
    """The stream that all loops of a run read. A row's value is its number: rows are counted through all shards."""

    lengths: tuple[int, ...]
    known: bool = False  # the source tells the lengths; otherwise shards have to be read
    transform: str = ""  # one of `TRANSFORMS`; empty: none

    def shards(self) -> Sequence[str]:
        return [str(number) for number in range(len(self.lengths))]

    def rows(self, shard: str) -> int | None:
        return self.lengths[int(shard)] if self.known else None

    def open(self, shard: str, start: int) -> Iterator[int]:
        first = self.starts[int(shard)]
        return iter(range(first + start, first + self.lengths[int(shard)]))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """For each shard, the number of its first row."""
        return (0, *accumulate(self.lengths))[:-1]

    @cached_property
    def described(self) -> Shards:
        return Shards.of(shard_names(self), [self.rows(shard) for shard in self.shards()])

    def numbers(self, rows: Ranges) -> list[int]:
        """Return the numbers of rows that are given by their addresses."""
        parts = (range(start, stop) for start, stop in rows)
        return [self.starts[address // ROWS] + address % ROWS for address in chain.from_iterable(parts)]


def _long(row: int) -> list[int]:
    return list(repeat(row, row % 4))


TRANSFORMS: dict[str, tuple[Step, ...]] = {
    "": (),
    "filter": (lambda row: row if row % 3 else None,),
    "split": (_long, Pack(1)),
    "pack": (_long, Pack(_PACKED)),
}


@dataclass(frozen=True)
class Read:
    """A batch of a stream, and the rows that are consumed with it."""

    batch: StreamBatch
    positions: int  # of the list
    consumed: tuple[int, ...]  # rows (see `by_epoch`); at the end of a list also those of which no sample was made


class StreamReader:
    """A worker's reader (see `training.streams.loading.StreamedBatches`)."""

    def __init__(self, plan: StreamPlan, batch_size: int) -> None:
        self._plan, self._batch_size = plan, batch_size
        self.shards = plan.described
        self.source = ""  # of the list that is read
        self._dealt = (0, 0, 0)
        self._found: dict[int, int] = {}
        self._batches: Iterator[StreamBatch] = iter(())
        self._delivered: list[tuple[int, int]] = []  # position in the list, and row
        self._cursor = self._first = 0  # position in the list, and the epoch with which the list begins
        self._given: Counter[int] = Counter()  # rows in samples since reading was begun, until they are consumed

    def seat(self, member: Member, deal: StreamDeal, times: int) -> None:
        """Go on where the member stands in the present deal, unless this reader does so already."""
        if (deal.number, times, member.loop_epoch) == self._dealt:
            return
        same = deal.number == self._dealt[0]
        self._dealt, self.source = (deal.number, times, member.loop_epoch), deal.names
        order, rank = member.in_force, member.rank
        self._found = merged(self._found if same else {}, dict(order.found))
        start = member.known.cursors[rank] + member.uncommitted.taken
        size = scaled(self._batch_size, order.program.scale_of(rank))
        self._given.clear()
        self._delivered, self._cursor, self._first = [], start, deal.epoch
        self._batches = list_batches(deal, start, member.loop_epoch, partial(self._read, rank=rank, size=size))

    def _read(self, deal: StreamDeal, start: int, *, rank: int, size: int) -> Batches:
        lengths = with_lengths(known_lengths(deal), self._found)
        rows = _Heard(self._plan, self._plan.shards(), deal, rank, lengths, start)
        rows.heard, rows.before = self._delivered, (deal.epoch - self._first) * PART + start
        steps = [_fresh(step) for step in TRANSFORMS[self._plan.transform]]
        yield from batches(rows, steps, size, start)

    def next(self) -> Read | None:
        """Return the next batch; None if the list is used up."""
        batch = next(self._batches, None)
        if batch is None:
            return None
        self._found = merged(self._found, batch.found)
        before, self._cursor = self._cursor, batch.cursor
        consumed = tuple(row for position, row in self._delivered if position < batch.cursor)
        del self._delivered[: len(consumed)]
        self._check(batch, consumed, ends=batch.last + batch.cursor // PART - before // PART)
        return Read(batch, batch.cursor - before, consumed)

    def _check(self, batch: StreamBatch, consumed: tuple[int, ...], ends: int) -> None:
        """Check that all that is made of the consumed rows is in batches: but for a packer's rests at lists' ends."""
        for sample in batch.samples or ():
            self._given.update(sample.tolist() if isinstance(sample, np.ndarray) else [sample])
        lacking = sum(max(0, self._parts(row) - self._given.pop(row, 0)) for row in consumed)
        if lacking > (ends * (_PACKED - 1) if self._plan.transform == "pack" else 0):
            violated("4: a row is consumed with the last sample made of it", f"{lacking} parts of {consumed}")

    def _parts(self, row: int) -> int:
        """Return the number of times that a row stands in samples."""
        if self._plan.transform == "filter":
            return min(1, row % 3)
        return len(_long(row)) if self._plan.transform else 1

    def found(self) -> Lengths:
        return tuple(sorted(self._found.items()))

    def measure(self, wanted: Lengths) -> None:
        names = self._plan.shards()
        lengths = {shard: measured(self._plan, names[shard], enough) for shard, enough in wanted}
        self._found, self.source = merged(self._found, lengths), self.shards.names
        whole = {shard: length for shard, length in self._found.items() if length >= 0}
        self.shards = Shards.of(
            names, [whole.get(shard, self._plan.rows(names[shard])) for shard in range(len(names))]
        )


class _Heard(ListRows):
    """The rows of a list of one epoch, each with its epoch. They are remembered as they are delivered."""

    heard: list[tuple[int, int]]  # position in the list, and row
    before: int  # position of the next row

    def __init__(
        self, plan: StreamPlan, names: Sequence[str], deal: StreamDeal, rank: int, lengths: Ints, start: int
    ) -> None:
        super().__init__(plan, names, deal, rank, lengths, start)
        pending = Pending.of(deal, rank)
        epochs = (deal.epoch + pending.at(number)[0] for number in range(start, pending.count))
        self._epochs = chain(epochs, repeat(deal.epoch))

    def take(self, most: int) -> list[Any]:
        values = super().take(most)
        rows = [epoch * _EPOCH + number for number, epoch in zip(values, self._epochs, strict=False)]
        self.heard += enumerate(rows, start=self.before)
        self.before += len(rows)
        return rows


def by_epoch(rows: Iterable[int]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Return the numbers of rows in their shards, by epoch."""
    found: dict[int, list[int]] = {}
    for row in rows:
        epoch, number = divmod(row, _EPOCH)
        found.setdefault(epoch, []).append(number)
    return tuple((epoch, tuple(numbers)) for epoch, numbers in sorted(found.items()))


def _fresh(step: Step) -> Step:
    return Pack(step.length) if isinstance(step, Pack) else step
