"""Sets of rows as sorted ranges. One set can hold rows of many shards, because each row of a shard has an address."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from raysgd_local.control.data.apportionment import Bools, Ints
from raysgd_local.control.data.streams import coding

ROWS = 1 << 40
"""The address of a row is shard × ROWS + row: a shard has fewer rows than this, so ranges of two shards never meet."""

MOST_SHARDS = 1 << 22


def _none() -> Ints:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Ranges:
    """A set of rows: half-open ranges that are sorted, not empty, and neither overlap nor touch. Equal sets are equal.

    >>> left = Ranges.of([(4, 6), (0, 2), (2, 3)])
    >>> list(left), left.count
    ([(0, 3), (4, 6)], 5)
    >>> list(left | Ranges.of([(3, 4)])), list(left.complement(8)), list(left - Ranges.of([(1, 5)]))
    ([(0, 6)], [(3, 4), (6, 8)], [(0, 1), (5, 6)])
    """

    bounds: Ints = field(default_factory=_none)  # start, stop, start, stop, …: strictly ascending

    @staticmethod
    def of(pairs: Iterable[tuple[int, int]]) -> Ranges:
        """Return the union of the ranges (start, stop)."""
        table = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
        return Ranges.between_all(table[:, 0], table[:, 1])

    @staticmethod
    def of_rows(rows: Ints) -> Ranges:
        """Return the set of these rows, which may come in any order.

        >>> list(Ranges.of_rows(np.array([7, 2, 3])))
        [(2, 4), (7, 8)]
        """
        return Ranges.between_all(rows, rows + 1)

    @staticmethod
    def between_all(starts: Ints, stops: Ints) -> Ranges:
        """Return the union of many ranges. Empty ones, and those that end before they start, hold no row."""
        order = np.flatnonzero(stops > starts)
        order = order[np.argsort(starts[order], kind="stable")]
        starts, reach = starts[order], np.maximum.accumulate(stops[order])
        first = np.ones(len(starts), dtype=bool)
        first[1:] = starts[1:] > reach[:-1]
        last = np.append(first[1:], True)[: len(first)]
        return Ranges(np.stack([starts[first], reach[last]], axis=1).ravel())

    @property
    def starts(self) -> Ints:
        return self.bounds[0::2]

    @property
    def stops(self) -> Ints:
        return self.bounds[1::2]

    @property
    def count(self) -> int:
        """Number of rows."""
        return int((self.stops - self.starts).sum())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts.tolist(), self.stops.tolist(), strict=True)

    def __bool__(self) -> bool:
        return len(self.bounds) > 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and np.array_equal(self.bounds, other.bounds)

    def __hash__(self) -> int:
        return hash(self.bounds.tobytes())

    def __or__(self, other: Ranges) -> Ranges:
        starts, stops = (self.starts, other.starts), (self.stops, other.stops)
        return Ranges.between_all(np.concatenate(starts), np.concatenate(stops))

    def __and__(self, other: Ranges) -> Ranges:
        edges = np.union1d(self.bounds, other.bounds)
        return _runs(edges, self.contains(edges) & other.contains(edges))

    def __sub__(self, other: Ranges) -> Ranges:
        edges = np.union1d(self.bounds, other.bounds)
        return _runs(edges, self.contains(edges) & ~other.contains(edges))

    def contains(self, rows: Ints) -> Bools:
        """Return for each of `rows` whether it is in the set."""
        inside: Bools = np.searchsorted(self.bounds, rows, side="right") % 2 == 1
        return inside

    def complement(self, length: int) -> Ranges:
        """Return the rows from 0 to `length` that are not in the set."""
        return Ranges.of([(0, length)]) - self

    def between(self, start: int, stop: int) -> Ranges:
        """Return the rows of the set from `start` to `stop`; fast also if the set is large."""
        if start >= stop:
            return Ranges()
        first = np.searchsorted(self.bounds, start, side="right") // 2
        last = (np.searchsorted(self.bounds, stop, side="left") + 1) // 2
        return Ranges(np.clip(self.bounds[2 * first : 2 * last], start, stop)) if first < last else Ranges()

    def of_shard(self, shard: int) -> Ranges:
        """Return the rows of one shard, as rows of that shard instead of addresses."""
        return Ranges(self.between(shard * ROWS, (shard + 1) * ROWS).bounds - shard * ROWS)

    def at(self, offsets: Ints) -> Ints:
        """Return the rows at these offsets: the row at offset j has j smaller ones in the set.

        >>> Ranges.of([(0, 3), (4, 6)]).at(np.array([4, 0, 3])).tolist()
        [5, 0, 4]
        """
        before = np.cumsum(self.stops - self.starts) - (self.stops - self.starts)
        which = np.searchsorted(before, offsets, side="right") - 1
        rows: Ints = self.starts[which] + offsets - before[which]
        return rows

    def head(self, count: int) -> Ranges:
        """Return the `count` smallest rows, or all if there are not as many."""
        if count <= 0 or count >= self.count:
            return self if count > 0 else Ranges()
        return self.between(0, int(self.at(np.array([count - 1]))[0]) + 1)

    def rows(self) -> Ints:
        """Return all rows, ascending."""
        return self.at(np.arange(self.count, dtype=np.int64))

    def shard_counts(self) -> tuple[Ints, Ints]:
        """Return the shards that have rows in the set, ascending, and the number of rows of each."""
        shards, first = np.unique(self.starts // ROWS, return_index=True)
        sizes = self.stops - self.starts
        return shards, np.add.reduceat(sizes, first) if len(shards) else sizes

    def without_shards(self, shards: Ints) -> Ranges:
        """Return the set without the rows of these shards."""
        kept = ~np.isin(self.starts // ROWS, shards)
        return Ranges(self.bounds[np.repeat(kept, 2)])

    def encode(self) -> bytes:
        """Return the set in few bytes: half of one for a small gap, and for a small range. `decode` is the inverse."""
        shards, first, counts = np.unique(self.starts // ROWS, return_index=True, return_counts=True)
        steps = np.diff(self.bounds, prepend=0)
        steps[2 * first] = self.starts[first] - shards * ROWS
        return coding.encode(np.concatenate([[len(shards)], np.diff(shards, prepend=0), counts, steps]))

    @staticmethod
    def decode(code: bytes) -> Ranges:
        """Return the set that was encoded.

        >>> ranges = Ranges.of([(0, 3), (4, 6), (5 * ROWS, 5 * ROWS + 9)])
        >>> len(ranges.encode()), Ranges.decode(ranges.encode()) == ranges
        (6, True)
        """
        values = coding.decode(code)
        if len(values) == 0:
            return Ranges()
        shards, counts, steps = np.split(values[1:], [values[0], 2 * values[0]])
        sums, first = np.cumsum(steps), 2 * (np.cumsum(counts) - counts)
        base = np.cumsum(shards) * ROWS - (sums[first] - steps[first])
        return Ranges(sums + np.repeat(base, 2 * counts))


def _runs(edges: Ints, inside: Bools) -> Ranges:
    """Return the ranges that begin and end where `inside` changes from one edge to the next."""
    return Ranges(edges[np.diff(inside, prepend=False)])
