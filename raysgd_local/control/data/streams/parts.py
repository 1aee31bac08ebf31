"""Lists that go across epochs: a part for each epoch, and one cursor through all of them.

The epochs after the open one are dealt together with it: a rank's list of an epoch is followed by its list of the next.
How many rows a part has is known when it was read. So each has as many positions as no part has rows, and a step on the
last sample of a part takes the cursor to the beginning of the next part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.streams.consumption import all_consumed, all_needed, consumed, needed
from raysgd_local.control.data.streams.deal import Pending, StreamDeal, dealt_lengths, unfinished
from raysgd_local.control.data.streams.lengths import UNKNOWN
from raysgd_local.control.data.streams.ranges import ROWS, Ranges
from raysgd_local.control.data.streams.spans import empty_lists

PART = ROWS
"""The number of positions of a list's part, where rounds go across epochs."""


def parts(deal: StreamDeal) -> int:
    """Return the number of parts of the lists."""
    return max(1, deal.epochs - deal.epoch)


def ends_at(deal: StreamDeal, epoch: int) -> int:
    """Return the position at which `epoch` ends in every list, where rounds go across epochs."""
    return max(0, epoch - deal.epoch + 1) * PART


@lru_cache(maxsize=8)
def part(deal: StreamDeal, index: int) -> StreamDeal:
    """Return the deal of one part alone: of the open epoch, with all pending rows, or of the one `index` later.

    It is a pure function of the deal, so members go on to the next epoch without the driver.
    """
    if not deal.epochs:
        return deal
    epoch = deal.epoch + index
    shares = tuple(0.0 if first > epoch else share for first, share in zip(deal.left, deal.shares, strict=True))
    alone = replace(deal, epoch=epoch, shares=shares, epochs=0, ahead=(), left=())
    if index == 0:
        return alone
    taken = deal.ahead[min(index, len(deal.ahead)) - 1]
    none = tuple(b"" for _ in deal.shares)
    return replace(alone, **vars(taken), pending=none, later_pending=())


def begins(deal: StreamDeal) -> tuple[int, ...]:
    """Return for each rank the position at which its list begins: behind the parts without shards before the others."""
    if not deal.epochs:
        return tuple(0 for _ in deal.shares)
    return tuple(_first_part(deal, rank) * PART for rank in range(len(deal.shares)))


def _first_part(deal: StreamDeal, rank: int) -> int:
    if any(row[rank] for row in deal.later_pending):
        return 0
    first = 0 if deal.pending[rank] else max(0, deal.left[rank] - deal.epoch)
    return next(
        (index for index in range(first, parts(deal)) if not empty_lists(part(deal, index))[rank]), parts(deal)
    )


def unsure(deal: StreamDeal) -> bool:
    """Whether epochs after the open one are dealt, and the lengths of some shards are not known."""
    if not deal.epochs:
        return False
    fresh = part(deal, len(deal.ahead))
    return bool((dealt_lengths(fresh)[unfinished(fresh)] == UNKNOWN).any())


def consumed_by_epoch(deal: StreamDeal, rank: int, cursor: int, lengths: Ints, epochs: range) -> dict[int, Ranges]:
    """Return for each of `epochs` the rows before `cursor` in the rank's list; nothing for an epoch without any.

    Raises RuntimeError if the lengths of some shards must be known first (see `needed_in`).
    """
    head = Pending.of(deal, rank).head(cursor)
    found = {epoch: rows for epoch, rows in enumerate(head, start=deal.epoch) if rows and epoch in epochs}
    for own, position in _parts_before(deal, cursor, epochs):
        rows = all_consumed(own, rank, lengths) if position is None else consumed(own, rank, position, lengths)
        if rows:
            found[own.epoch] = found.get(own.epoch, Ranges()) | rows
    return found


def needed_in(deal: StreamDeal, rank: int, cursor: int, lengths: Ints, epochs: range) -> dict[int, int]:
    """Return the shards of unknown length that `consumed_by_epoch` has to know about, and how much (see `needed`)."""
    found: dict[int, int] = {}
    for own, position in _parts_before(deal, cursor, epochs):
        wanted = all_needed(own, rank, lengths) if position is None else needed(own, rank, position, lengths)
        for shard, rows in wanted.items():
            found[shard] = max(rows, found.get(shard, 0))
    return found


def taken_by_epoch(deal: StreamDeal, rank: int, start: int, stop: int, lengths: Ints) -> dict[int, Ranges]:
    """Return by epoch the rows from position `start` to `stop`: pending if the steps on them are."""
    first = deal.epoch + (start // PART if deal.epochs else 0)
    epochs = range(first, deal.epoch + parts(deal))
    before = consumed_by_epoch(deal, rank, start, lengths, epochs)
    after = consumed_by_epoch(deal, rank, stop, lengths, epochs)
    return {epoch: rows - before.get(epoch, Ranges()) for epoch, rows in after.items()}


def _parts_before(deal: StreamDeal, cursor: int, epochs: range) -> Iterator[tuple[StreamDeal, int | None]]:
    """Yield the parts of `epochs` that begin before `cursor`, and the position in each: None behind its end."""
    if not deal.epochs:
        yield deal, cursor
        return
    last, position = divmod(cursor, PART)
    for index in range(max(0, epochs.start - deal.epoch), min(last + 1, parts(deal), epochs.stop - deal.epoch)):
        if index < last or position:
            yield part(deal, index), None if index < last else position
