"""The schedule of a rank's reading: which row of which span stands at which position.

A rank reads `interleave` spans in turn, one row of each. When a span ends, the next one takes over its turns. Each turn
has a number, its time: a span that opens at time t has its row j at time t + j × interleave. While no turn is empty, a
row's time is its position, so the openings of a million spans and a cursor of 10^9 take one pass over the spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapreplace

import numpy as np

from raysgd_local.control.data.apportionment import Ints

_ENDLESS = 1 << 50  # rows of a span whose end is unknown


@dataclass(frozen=True, eq=False)
class Schedule:
    """The spans that open before some position. Spans of unknown size count as endless."""

    opened: Ints  # (n,) time at which each span opens; the first n of the rank's spans
    sizes: Ints  # (n,) rows of each; −1 − n: unknown, but at least n
    interleave: int
    closing: int  # time of the first turn that has none of these spans: until then a row's time is its position

    def rows_at(self, time: int) -> Ints:
        """Return the number of rows of each span that are read before `time`."""
        turns = -((self.opened - time) // self.interleave)
        rows: Ints = np.clip(turns, 0, self._sizes)
        return rows

    def time_of(self, position: int) -> int:
        """Return the least time before which `position` rows are read; the end of all spans if there are fewer."""
        if position <= self.closing:
            return position
        ends = self.opened + self._sizes * self.interleave
        open_still = ends > self.closing
        late = Schedule(self.opened[open_still], self.sizes[open_still], self.interleave, self.closing)
        before = self.closing - int(late.rows_at(self.closing).sum())
        low, high = self.closing, int(ends.max(initial=0))
        while low < high:
            middle = (low + high) // 2
            low, high = (
                (low, middle) if before + int(late.rows_at(middle).sum()) >= position else (middle + 1, high)
            )
        return low

    def unsure(self, position: int) -> list[tuple[int, int]]:
        """Return the spans that may have ended before `position`, and the rows that each must have if it did not."""
        unknown = np.flatnonzero(self.sizes < 0)
        if len(unknown) == 0:
            return []
        wanted = self.rows_at(self.time_of(position))
        short = unknown[wanted[unknown] > -1 - self.sizes[unknown]]
        return list(zip(short.tolist(), wanted[short].tolist(), strict=True))

    def reads(self, start: int, stop: int) -> tuple[Ints, Ints]:
        """Return the rows from position `start` to `stop`, in order: the number of each one's span, and its offset."""
        first, last = self.rows_at(self.time_of(start)), self.rows_at(self.time_of(stop))
        counts = last - first
        span = np.repeat(np.arange(len(counts)), counts)
        offset = np.arange(len(span)) - np.repeat(np.cumsum(counts) - counts - first, counts)
        order = np.argsort(self.opened[span] + offset * self.interleave)
        return span[order], offset[order]

    @property
    def _sizes(self) -> Ints:
        return np.where(self.sizes < 0, _ENDLESS, self.sizes)


def schedule(sizes: Ints, interleave: int, until: int) -> Schedule:
    """Return the schedule of the spans that open before position `until`.

    >>> plan = schedule(np.array([3, 1, 2]), interleave=2, until=6)
    >>> plan.opened.tolist(), [column.tolist() for column in plan.reads(0, 6)]
    ([0, 1, 3], [[0, 1, 0, 2, 0, 2], [0, 0, 1, 0, 2, 1]])
    """
    opened: list[int] = []
    turns = list(range(interleave))  # for each turn of the round, the time at which it is free: a heap
    for size in np.where(sizes < 0, _ENDLESS, sizes).tolist():
        if turns[0] >= until:
            break
        opened.append(turns[0])
        heapreplace(turns, turns[0] + size * interleave)
    return Schedule(np.array(opened, dtype=np.int64), sizes[: len(opened)], interleave, closing=turns[0])
