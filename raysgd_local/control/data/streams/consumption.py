"""Consumption: the rows that a rank has consumed when its cursor stands at some position of its list.

A rank's list begins with its pending rows. The positions after them are cut into windows of `deal.window` rows, each
shuffled by a permutation that depends on the deal, the rank and the window: all windows before the cursor's are
consumed whole, so only that one has to be replayed. A window is shorter only where the list ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.streams.deal import Pending, StreamDeal, pending_rows, stream
from raysgd_local.control.data.streams.ranges import ROWS, Ranges
from raysgd_local.control.data.streams.schedule import Schedule, schedule
from raysgd_local.control.data.streams.spans import Spans, spans

_OF_WINDOWS = 2  # family of random streams


@dataclass(frozen=True)
class WindowPosition:
    """Where a cursor stands: behind some of the pending rows, or in a window."""

    pending: int  # pending rows before the cursor
    window: int  # number of its window
    begin: int  # rows before the window, without pending ones
    inside: int  # rows of the window before the cursor


def window_position(deal: StreamDeal, pending: int, cursor: int) -> WindowPosition:
    """Return where a cursor stands in the list of a rank that has so many pending rows."""
    window, inside = divmod(max(0, cursor - pending), deal.window)
    return WindowPosition(min(cursor, pending), window, window * deal.window, inside)


def window_order(deal: StreamDeal, rank: int, window: int, size: int) -> Ints:
    """Return the order in which the rows of a window are consumed: the numbers from 0 to size − 1, permuted."""
    if deal.window == 1:
        return np.arange(size)
    return stream(deal, _OF_WINDOWS, rank, window).permutation(size)


def consumed(deal: StreamDeal, rank: int, cursor: int, lengths: Ints) -> Ranges:
    """Return the addresses of the deal's epoch before `cursor` in the rank's list, or all if the list is not as long.

    `lengths`: of all shards (see `lengths.UNKNOWN`). Raises RuntimeError if some must be known first (see `needed`).

    >>> from raysgd_local.control.data.streams.ledger import StreamLedger
    >>> deal = StreamLedger.of([4, 6]).open_epoch(0).deal(0, seed=7, shares=(1.0,), interleave=2, window=3)
    >>> lengths = np.array([4, 6])
    >>> [list(consumed(deal, 0, cursor, lengths).of_shard(0)) for cursor in (2, 6, 10)]
    [[(0, 1)], [(0, 3)], [(0, 4)]]
    """
    plan = _plan(deal, rank, cursor, lengths)
    if plan.wanted:
        raise RuntimeError(f"the lengths of shards {', '.join(map(str, plan.wanted))} must be known first")
    own, here, reading = plan.spans, plan.position, plan.schedule
    counts = np.zeros(len(own), dtype=np.int64)
    counts[: len(reading.opened)] = reading.rows_at(reading.time_of(here.begin))
    found = plan.pending.head(here.pending)[0] | own.heads(counts)
    if here.inside:
        rows = own.addresses(*reading.reads(here.begin, plan.end))
        order = window_order(deal, rank, here.window, len(rows))
        found |= Ranges.of_rows(rows[order[: here.inside]])
    return found


def needed(deal: StreamDeal, rank: int, cursor: int, lengths: Ints) -> dict[int, int]:
    """Return the shards of unknown length that `consumed` has to know about, and how much: empty if nothing.

    A shard's value is a number of rows: it suffices to know the length, or that there are at least so many rows (given
    as −1 − rows in `lengths`). Ask again with what was found: shards that open after the end of others come later.
    Workers tell the lengths of the shards that they read to their end, so this asks for those of a dead one.
    """
    return _plan(deal, rank, cursor, lengths).wanted


@dataclass(frozen=True, eq=False)
class _Plan:
    """The rank's reading as far as it matters to a cursor."""

    pending: Pending
    spans: Spans
    position: WindowPosition
    end: int  # rows up to the end of the cursor's window, if it is inside one
    schedule: Schedule

    @property
    def wanted(self) -> dict[int, int]:
        unsure = self.schedule.unsure(self.end)
        return {int(self.spans.shard[index]): self.spans.row(index, rows - 1) + 1 for index, rows in unsure}


def _plan(deal: StreamDeal, rank: int, cursor: int, lengths: Ints) -> _Plan:
    pending, own = Pending.of(deal, rank), spans(deal, rank)
    here = window_position(deal, pending.count, cursor)
    end = here.begin + (deal.window if here.inside else 0)
    return _Plan(pending, own, here, end, schedule(own.sizes(lengths), deal.interleave, end))


def all_consumed(deal: StreamDeal, rank: int, lengths: Ints) -> Ranges:
    """Return the addresses of all rows of the deal's epoch in the rank's list.

    Raises RuntimeError if some lengths must be known first (see `all_needed`).
    """
    own = spans(deal, rank)
    sizes = own.sizes(lengths)
    if (sizes < 0).any():
        unknown = sorted(own.shard[sizes < 0].tolist())
        raise RuntimeError(f"the lengths of shards {', '.join(map(str, unknown))} must be known first")
    return pending_rows(deal, rank) | own.heads(sizes)


def all_needed(deal: StreamDeal, rank: int, lengths: Ints) -> dict[int, int]:
    """Return the shards whose lengths `all_consumed` has to know, each to its end (see `needed`)."""
    own = spans(deal, rank)
    return dict.fromkeys(own.shard[own.sizes(lengths) < 0].tolist(), ROWS)


def list_length(deal: StreamDeal, rank: int, lengths: Ints) -> int | None:
    """Return the length of the rank's list, pending rows included; None if a shard's length is unknown."""
    sizes = spans(deal, rank).sizes(lengths)
    return None if (sizes < 0).any() else pending_rows(deal, rank).count + int(sizes.sum())


def taken_between(deal: StreamDeal, rank: int, start: int, stop: int, lengths: Ints) -> Ranges:
    """Return the addresses of the rows from position `start` to `stop`: pending if the steps on them are."""
    return consumed(deal, rank, stop, lengths) - consumed(deal, rank, start, lengths)
