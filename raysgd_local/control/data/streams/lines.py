"""Lines: everything that a deal gives out, in shuffled order, and where the ranks' parts of it begin and end.

An item is a shard that was not begun, or the rest of one that was. Items with the same holders stand in one line, and
rests in a line of their own, because each rank reads its rests first: then few shards are begun at any time, and the
record of consumed rows stays small. A line is cut into one stretch for each rank, in proportion to their shares. If a
cut falls close to an item's end it is moved there, so that shards are split only where there are few of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from raysgd_local.control.data.apportionment import (
    Floats,
    Ints,
    apportion,
    as_mask,
    split_among_all,
    split_among_holders,
)
from raysgd_local.control.data.streams.deal import (
    StreamDeal,
    dealt_lengths,
    holders_of,
    known_lengths,
    stream,
    taken_rows,
    unfinished,
)
from raysgd_local.control.data.streams.ranges import Ranges

SLACK = 1 / 256
"""A cut is moved to an item's end if no rank's rows change by more than this part."""

_LARGEST_FLOW = 1 << 30  # the maximum flow computes with 32 bits
_OF_ITEMS = 0  # family of random streams


@dataclass(frozen=True, eq=False)
class Items:
    """The items of a deal. All arrays are (n,)."""

    shard: Ints
    weight: Ints  # rows, estimated where the length is unknown; at least 1
    known: Ints  # rows; −1 if the length is not known exactly
    rest: Ints  # 1 for the rest of a shard that was begun, else 0
    held_by: Ints  # number of its set of holders; −1: none

    def take(self, index: Ints) -> Items:
        return Items(*(column[index] for column in (self.shard, self.weight, self.known, self.rest, self.held_by)))


@dataclass(frozen=True, eq=False)
class Line:
    """Items in the order in which they are dealt, and one stretch of their rows for each rank."""

    items: Items
    edges: Ints  # items + 1: weight of the items before
    cuts: Ints  # ranks + 1: rank r has the weight from cut r to cut r + 1


@dataclass(frozen=True, eq=False)
class Lines:
    """All lines of a deal, and the rows of shards that are in none, because they are consumed or pending."""

    lines: tuple[Line, ...]
    taken: Ranges


@lru_cache(maxsize=2)
def lines(deal: StreamDeal) -> Lines:
    """Return the lines of a deal: equal deals give equal lines in every process."""
    taken = taken_rows(deal)
    items = _items(deal, taken)
    items = items.take(stream(deal, _OF_ITEMS).permutation(len(items.shard)))
    numbers = 2 * items.held_by + items.rest
    groups = [items.take(np.flatnonzero(numbers == number)) for number in np.unique(numbers)[::-1]]
    shares = np.array(deal.shares, dtype=np.float64)
    slack = SLACK * items.weight.sum() * shares / max(shares.sum(), 1e-300)
    amounts = _amounts(deal, groups)
    return Lines(tuple(_line(group, row, slack) for group, row in zip(groups, amounts, strict=True)), taken)


def unknown_needed(deal: StreamDeal) -> tuple[int, ...]:
    """Return the shards whose lengths must be known before this deal can be fair; empty if it is.

    There are fewer shards than ranks, so some must be split, and a shard of unknown length can't be. Have these shards
    measured, and deal again.

    >>> from raysgd_local.control.data.streams.ledger import StreamLedger
    >>> ledger = StreamLedger.of([5, None]).open_epoch(0)
    >>> unknown_needed(ledger.deal(0, seed=7, shares=(1.0,) * 3)), unknown_needed(ledger.deal(0, 7, (1.0, 1.0)))
    ((1,), ())
    """
    items = _items(deal, taken_rows(deal))
    if len(items.shard) >= sum(share > 0 for share in deal.shares):
        return ()
    return tuple(np.sort(items.shard[items.known < 0]).tolist())


def uncovered(deal: StreamDeal) -> tuple[int, ...]:
    """Return the shards with rows that no rank may take, which are therefore in no list (only if `local_data`)."""
    if not deal.local_data:
        return ()
    willing = {rank for rank, share in enumerate(deal.shares) if share > 0}
    covered = [number for number, ranks in enumerate(deal.holders) if willing & set(ranks)]
    items = _items(deal, taken_rows(deal))
    return tuple(np.sort(items.shard[~np.isin(items.held_by, covered)]).tolist())


def _items(deal: StreamDeal, taken: Ranges) -> Items:
    """Return what is left of every shard, in the order of the shards."""
    lengths = dealt_lengths(deal)
    begun, counts = taken.shard_counts()
    done = np.zeros(deal.shards, dtype=np.int64)
    done[begun] = counts
    known = np.where((exact := known_lengths(deal)) < 0, -1, exact - done)
    usual = np.where(lengths < 0, _usual_length(deal, done), lengths)
    weight = np.where(known < 0, np.maximum(usual - done, 1), known)
    shard = np.flatnonzero(unfinished(deal) & (known != 0))
    rest = np.isin(shard, begun).astype(np.int64)
    return Items(shard, weight[shard], known[shard], rest, holders_of(deal)[shard])


def _usual_length(deal: StreamDeal, done: Ints) -> int:
    """Return the length to expect of a shard whose length is unknown."""
    return max(1, deal.typical or 2 * int(done.max(initial=0)))


def _amounts(deal: StreamDeal, groups: list[Items]) -> Ints:
    """Return the weight of each line that each rank gets, in units that differ from line to line: (lines, ranks)."""
    totals = np.array([int(group.weight.sum()) for group in groups], dtype=np.int64)
    ranks = np.flatnonzero(np.array(deal.shares) > 0)
    shares = np.array(deal.shares, dtype=np.float64)[ranks]
    amounts = np.zeros((len(groups), len(deal.shares)), dtype=np.int64)
    if len(ranks) == 0 or len(groups) == 0:
        return amounts
    if not deal.holders and not deal.local_data:
        amounts[:, ranks] = [apportion(int(total), shares) for total in totals]
        return amounts
    masks = as_mask([*deal.holders, ()], len(deal.shares))  # the last is for −1
    eligible = masks[[int(group.held_by[0]) for group in groups]][:, ranks]
    counts = -(-totals // (int(totals.sum()) // _LARGEST_FLOW + 1))
    if deal.local_data:
        some = np.flatnonzero(eligible.any(axis=1))
        amounts[np.ix_(some, ranks)] = split_among_holders(counts[some], eligible[some], shares)
    else:
        amounts[:, ranks] = split_among_all(counts, eligible, shares)
    return amounts


def _line(items: Items, amounts: Ints, slack: Floats) -> Line:
    """Cut a line in proportion to `amounts`. If nobody may take it, all its stretches are empty.

    `slack`: rows by which the stretch of each rank may be longer or shorter at each end, (ranks,).
    """
    edges = np.concatenate([[0], np.cumsum(items.weight)])
    cuts = np.zeros(len(amounts) + 1, dtype=np.int64)
    takers = np.flatnonzero(amounts)
    if len(takers):
        exact = np.cumsum(amounts[takers])[:-1] * (edges[-1] / amounts.sum())
        least = np.minimum(slack[takers[:-1]], slack[takers[1:]])
        inner = _moved(np.minimum(np.round(exact).astype(np.int64), edges[-1]), items, edges, least)
        ends = np.zeros(len(amounts), dtype=np.int64)
        ends[takers] = [*inner, edges[-1]]
        cuts[1:] = np.maximum.accumulate(ends)
    return Line(items, edges, cuts)


def _moved(cuts: Ints, items: Items, edges: Ints, slack: Floats) -> Ints:
    """Move the inner cuts of a line to the nearer end of their item: if it is close, or the item can't be split."""
    which = np.searchsorted(edges, cuts, side="right") - 1
    which = np.minimum(which, len(items.weight) - 1)
    down, up = cuts - edges[which], edges[which + 1] - cuts
    moved = np.where(down <= up, edges[which], edges[which + 1])
    whole = (np.minimum(down, up) <= slack) | (items.known[which] < 0)
    result: Ints = np.maximum.accumulate(np.where(whole, moved, cuts))
    return result
