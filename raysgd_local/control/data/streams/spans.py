"""Spans: the pieces of shards that one rank reads, in the order in which it begins them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.streams.deal import StreamDeal, stream
from raysgd_local.control.data.streams.lines import Line, lines
from raysgd_local.control.data.streams.ranges import ROWS, Ranges

_OF_RANKS = 1  # family of random streams


@dataclass(frozen=True)
class Span:
    """Rows of one shard from `start` to `stop`, without those in `holes`."""

    shard: int
    start: int
    stop: int | None  # None: to the shard's end
    holes: Ranges = field(default_factory=Ranges)  # rows that are not read here: consumed, or another rank's


@dataclass(frozen=True, eq=False)
class Spans:
    """A rank's spans. There may be a million, so they are columns, each (n,)."""

    shard: Ints
    start: Ints
    stop: Ints  # −1: to the shard's end
    holes: Mapping[int, Ranges]  # for the numbers of spans that have any

    def __len__(self) -> int:
        return len(self.shard)

    def __getitem__(self, index: int) -> Span:
        index = range(len(self))[index]
        stop = int(self.stop[index])
        ends = stop if stop >= 0 else None
        return Span(int(self.shard[index]), int(self.start[index]), ends, self.holes.get(index, Ranges()))

    def sizes(self, lengths: Ints) -> Ints:
        """Return the number of rows of each span; −1 − n if it is unknown, but at least n.

        `lengths`: of all shards (see `UNKNOWN`).
        """
        end = np.where(self.stop >= 0, self.stop, lengths[self.shard])
        known, reach = end >= 0, np.where(end >= 0, end, -1 - end)
        sizes = reach - self.start
        for index, holes in self.holes.items():
            sizes[index] -= holes.between(0, int(reach[index])).count
        sizes = np.maximum(sizes, 0)
        return np.where(known, sizes, -1 - sizes)

    def row(self, index: int, offset: int) -> int:
        """Return the row of a span's shard that is `offset` rows after the span's first."""
        if index not in self.holes:
            return int(self.start[index]) + offset
        return int(self._open(index).at(np.array([offset]))[0])

    def addresses(self, indices: Ints, offsets: Ints) -> Ints:
        """Return the address of each row that is given by the number of its span and its offset in it."""
        found: Ints = self.shard[indices] * ROWS + self.start[indices] + offsets
        for index in self.holes.keys() & set(indices.tolist()):
            own = indices == index
            found[own] = self.shard[index] * ROWS + self._open(index).at(offsets[own])
        return found

    def heads(self, counts: Ints) -> Ranges:
        """Return the first `counts[i]` rows of each span i."""
        starts = self.shard * ROWS + self.start
        plain = np.ones(len(self), dtype=bool)
        plain[list(self.holes)] = False
        begun = [self._head(index, int(counts[index])) for index in self.holes if counts[index]]
        return Ranges.between_all(
            np.concatenate([starts[plain], *(part.starts for part in begun)]),
            np.concatenate([(starts + counts)[plain], *(part.stops for part in begun)]),
        )

    def _head(self, index: int, count: int) -> Ranges:
        return Ranges(self._open(index).head(count).bounds + self.shard[index] * ROWS)

    def _open(self, index: int) -> Ranges:
        stop = int(self.stop[index])
        return Ranges.of([(int(self.start[index]), stop if stop >= 0 else ROWS)]) - self.holes[index]


@lru_cache(maxsize=4)
def spans(deal: StreamDeal, rank: int) -> Spans:
    """Return the rank's spans: first rests of shards that were begun, then whole shards, each in shuffled order.

    Every row that is neither consumed nor pending is in exactly one rank's spans (`lines.uncovered` has the exception).
    Equal deals give equal spans in every process.

    >>> from raysgd_local.control.data.streams.ledger import StreamLedger
    >>> deal = StreamLedger.of([4, 6, None]).open_epoch(0).deal(0, seed=7, shares=(2.0, 1.0))
    >>> [[(span.shard, span.start, span.stop) for span in spans(deal, rank)] for rank in (0, 1)]
    [[(0, 0, 4), (1, 0, 1), (2, 0, None)], [(1, 1, 6)]]
    """
    everything = lines(deal)
    generator = stream(deal, _OF_RANKS, rank)
    parts = [_stretch(line, rank) for line in everything.lines]
    rests = [part for part, line in zip(parts, everything.lines, strict=True) if line.items.rest[0]]
    wholes = [part for part, line in zip(parts, everything.lines, strict=True) if not line.items.rest[0]]
    table = np.concatenate([_shuffled(rests, generator), _shuffled(wholes, generator)])
    return _spans(table, everything.taken)


def empty_lists(deal: StreamDeal) -> tuple[bool, ...]:
    """Return for each rank whether its list is empty: it gets no shards, and has no pending rows.

    >>> from raysgd_local.control.data.streams.ledger import StreamLedger
    >>> empty_lists(StreamLedger.of([4, None]).open_epoch(0).deal(0, seed=7, shares=(1.0, 0.0)))
    (False, True)
    """
    shards = sum((np.diff(line.cuts) for line in lines(deal).lines), np.zeros(len(deal.shares), dtype=np.int64))
    return tuple(not count and not code for count, code in zip(shards.tolist(), deal.pending, strict=True))


def _shuffled(parts: list[Ints], generator: np.random.Generator) -> Ints:
    table = np.concatenate([np.empty((0, 4), dtype=np.int64), *parts])
    return table[generator.permutation(len(table))]


def _stretch(line: Line, rank: int) -> Ints:
    """Return the rank's items of a line: a row (shard, begin, end, rest) each, where −1 is an open end.

    `begin` and `end` count the rows that are left of the shard.
    """
    low, high = line.cuts[rank], line.cuts[rank + 1]
    if low == high:
        return np.empty((0, 4), dtype=np.int64)
    first, last = (
        np.searchsorted(line.edges, low, side="right") - 1,
        np.searchsorted(line.edges, high, side="left"),
    )
    items = line.items.take(np.arange(first, last))
    begin = np.maximum(low - line.edges[first:last], 0)
    end = np.where(items.known < 0, -1, np.minimum(high - line.edges[first:last], items.known))
    return np.stack([items.shard, begin, end, items.rest], axis=1)


def _spans(table: Ints, taken: Ranges) -> Spans:
    """Turn counts of rows that are left into rows of the shard, for shards that were begun."""
    shard, start, stop = table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy()
    holes: dict[int, Ranges] = {}
    for index in np.flatnonzero(table[:, 3]).tolist():
        closed = taken.of_shard(int(shard[index]))
        left = closed.complement(ROWS)
        start[index] = left.at(start[index : index + 1])[0]
        if stop[index] >= 0:
            stop[index] = left.at(stop[index : index + 1] - 1)[0] + 1
        inner = closed.between(int(start[index]), int(stop[index]) if stop[index] >= 0 else ROWS)
        if inner:
            holes[index] = inner
    return Spans(shard, start, stop, holes)
