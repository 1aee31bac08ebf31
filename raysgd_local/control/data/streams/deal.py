"""The deal of a stream: the record from which every member computes which rows of which shards it reads.

A source has numbered shards, each an ordered sequence of rows. Its length is known, or not until a worker has read the
shard to its end. A deal gives out the rows of an epoch that are neither consumed nor pending: whole shards, and the
rests of shards that were begun. `spans` computes each rank's part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raysgd_local.control.data.apportionment import Bools, Ints
from raysgd_local.control.data.streams import coding
from raysgd_local.control.data.streams.lengths import UNKNOWN
from raysgd_local.control.data.streams.ranges import Ranges

MOST_INTERLEAVED = 4096  # times of rows that are read in turn must fit into 64 bits


@dataclass(frozen=True)
class EpochAhead:
    """The rows that nobody gets of an epoch after the open one, because they are consumed or pending."""

    finished: bytes  # for each shard whether all its rows are (see `coding.encode_flags`)
    begun: bytes  # rows of other shards (see `Ranges.encode`)


@dataclass(frozen=True)
class StreamDeal:
    """The inputs from which the rows of an epoch are dealt. Small: it travels with orders, to all members."""

    number: int  # counts the deals of a run, from 1
    epoch: int
    seed: int  # not negative
    names: str  # of the source (see `Shards.names`)
    shards: int  # of the source
    finished: bytes  # for each shard whether all its rows are consumed (see `coding.encode_flags`)
    begun: bytes  # consumed rows of other shards (see `Ranges.encode`)
    lengths: bytes  # table of 1 + length for each shard that is not finished (see `of_all`); 0: unknown
    shares: tuple[float, ...]  # for each rank its relative speed; 0: it gets no new rows
    pending: tuple[bytes, ...]  # for each rank, rows of its uncommitted steps: first in its own list
    interleave: int = 1  # number of spans that a rank reads in turn, at most MOST_INTERLEAVED
    window: int = 1  # number of consecutive positions that are shuffled together
    longest: bytes = (
        b""  # exact lengths of the longest shards; empty if all are exact (see `lengths.encode_lengths`)
    )
    typical: int = 0  # mean length of the shards whose length is known, in the whole source; 0: none
    holders: tuple[tuple[int, ...], ...] = ()  # distinct sets of ranks near the bytes of some shards
    held_by: bytes = b""  # table: for each shard 1 + the number of its set of holders; 0, or no table: none
    local_data: bool = False  # only holders may get a shard; otherwise they are only preferred
    # Only where rounds go across epochs (see `parts`):
    epochs: int = 0  # of the run: lists go on to the last one; 0: they end with the open epoch
    ahead: tuple[
        EpochAhead, ...
    ] = ()  # epochs that follow the open one; the last is also that of all further ones
    later_pending: tuple[tuple[bytes, ...], ...] = ()  # pending rows of those epochs: first in a list, too
    left: tuple[int, ...] = ()  # for each rank the first epoch of which it gets new rows: it left those before
    of_all: bool = False  # `lengths` and `longest` are of finished shards, too: they serve for all epochs

    def __post_init__(self) -> None:
        if len(self.pending) != len(self.shares):
            raise ValueError(f"{len(self.pending)} lists of pending rows for {len(self.shares)} ranks")
        if not 1 <= self.interleave <= MOST_INTERLEAVED or self.window < 1:
            raise ValueError(f"{self.interleave} spans in turn, and windows of {self.window} rows")


def unfinished(deal: StreamDeal) -> Bools:
    """Return a mask of the shards that have rows left, or may have."""
    return ~coding.decode_flags(deal.finished)


def dealt_lengths(deal: StreamDeal) -> Ints:
    """Return each shard's length as the deal knows it, UNKNOWN where it doesn't, and for shards that are finished.

    >>> from raysgd_local.control.data.streams.ledger import StreamLedger
    >>> dealt_lengths(StreamLedger.of([5, None, 7]).open_epoch(0).deal(0, seed=7, shares=(1.0,))).tolist()
    [5, -1, 7]
    """
    lengths, which = np.full(deal.shards, UNKNOWN, dtype=np.int64), _in_table(deal)
    lengths[which] = coding.decode_table(deal.lengths) - 1
    if deal.longest:
        numbers, exact = np.split(coding.decode(deal.longest), 2)
        lengths[which[np.cumsum(numbers)]] = exact
    lengths[~unfinished(deal)] = UNKNOWN
    return lengths


def _in_table(deal: StreamDeal) -> Ints:
    """Return the shards of the table of lengths."""
    return np.arange(deal.shards) if deal.of_all else np.flatnonzero(unfinished(deal))


def known_lengths(deal: StreamDeal) -> Ints:
    """Return each shard's length as far as the deal knows it exactly: what a member knows without reading."""
    lengths = dealt_lengths(deal)
    if not deal.longest:
        return lengths
    numbers, _ = np.split(coding.decode(deal.longest), 2)
    exact = _in_table(deal)[np.cumsum(numbers)]
    known = np.where(lengths > 0, UNKNOWN, lengths)
    known[exact] = lengths[exact]
    return known


def holders_of(deal: StreamDeal) -> Ints:
    """Return the number of each shard's set of holders; −1 if it has none."""
    return coding.decode_table(deal.held_by) - 1 if deal.held_by else np.full(deal.shards, -1, dtype=np.int64)


@dataclass(frozen=True)
class Pending:
    """The rows of a rank's uncommitted steps, with which its list begins: of the open epoch, and of each later one."""

    by_epoch: tuple[Ranges, ...]

    @staticmethod
    def of(deal: StreamDeal, rank: int) -> Pending:
        return Pending(tuple(Ranges.decode(row[rank]) for row in (deal.pending, *deal.later_pending)))

    @cached_property
    def count(self) -> int:
        return sum(rows.count for rows in self.by_epoch)

    def head(self, count: int) -> tuple[Ranges, ...]:
        """Return the first `count` rows, by epoch.

        >>> pending = Pending((Ranges.of([(4, 6)]), Ranges.of([(0, 3)])))
        >>> [list(rows) for rows in pending.head(3)], pending.at(4)
        ([[(4, 6)], [(0, 1)]], (1, 2))
        """
        found = []
        for rows in self.by_epoch:
            found.append(rows.head(count))
            count -= rows.count
        return tuple(found)

    def at(self, number: int) -> tuple[int, int]:
        """Return the row of this number: how many epochs after the open one, and its address."""
        epoch = 0
        while number >= self.by_epoch[epoch].count:
            number -= self.by_epoch[epoch].count
            epoch += 1
        return epoch, int(self.by_epoch[epoch].at(np.array([number]))[0])


def pending_rows(deal: StreamDeal, rank: int) -> Ranges:
    """Return the rank's pending rows of the open epoch."""
    return Ranges.decode(deal.pending[rank])


def taken_rows(deal: StreamDeal) -> Ranges:
    """Return the rows that are not dealt anew: consumed ones of unfinished shards, and all ranks' pending ones."""
    parts = [Ranges.decode(code) for code in (deal.begun, *deal.pending) if code]
    bounds = np.concatenate([part.bounds for part in parts]) if parts else Ranges().bounds
    return Ranges.between_all(bounds[0::2], bounds[1::2])


def stream(deal: StreamDeal, *key: int) -> np.random.Generator:
    """Return the generator of one of the deal's random orders."""
    return np.random.default_rng((deal.seed, deal.epoch, deal.number, *key))
