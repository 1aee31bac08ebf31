"""The deal of a stream: the record from which every member computes which rows of which shards it reads.

A source has numbered shards, each an ordered sequence of rows. Its length is known, or not until a worker has read the
shard to its end. A deal gives out the rows of an epoch that are neither consumed nor pending: whole shards, and the
rests of shards that were begun. `spans` computes each rank's part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysgd_local.control.data.apportionment import Bools, Ints
from raysgd_local.control.data.streams import coding
from raysgd_local.control.data.streams.ranges import Ranges

UNKNOWN = -1
"""The length of a shard that was not read to its end. −1 − n: not known either, but at least n rows."""

MOST_INTERLEAVED = 4096  # times of rows that are read in turn must fit into 64 bits

EXACT_BYTES = 1 << 18
"""A deal says how long shards are in at most so many bytes. If their lengths need more, it has only rounded ones."""

_LEVELS = 6  # distinct rounded lengths; with 0 and unknown 8, so that a length takes 3 bits
_LONGEST = 4096  # shards whose lengths are exact nevertheless


@dataclass(frozen=True)
class StreamDeal:
    """The inputs from which the rows of an epoch are dealt. Small: it travels with orders, to all members."""

    number: int  # counts the deals of a run, from 1
    epoch: int
    seed: int  # not negative
    shards: int  # of the source
    finished: bytes  # for each shard whether all its rows are consumed (see `coding.encode_flags`)
    begun: bytes  # consumed rows of other shards (see `Ranges.encode`)
    lengths: bytes  # table of 1 + length for each shard that is not finished; 0: unknown
    shares: tuple[float, ...]  # for each rank its relative speed; 0: it gets no new rows
    pending: tuple[bytes, ...]  # for each rank, rows of its uncommitted steps: first in its own list
    interleave: int = 1  # number of spans that a rank reads in turn, at most MOST_INTERLEAVED
    window: int = 1  # number of consecutive positions that are shuffled together
    longest: bytes = b""  # exact lengths of the longest shards; empty if all are exact (see `encode_lengths`)
    typical: int = 0  # mean length of the shards whose length is known, in the whole source; 0: none
    holders: tuple[tuple[int, ...], ...] = ()  # distinct sets of ranks near the bytes of some shards
    held_by: bytes = b""  # table: for each shard 1 + the number of its set of holders; 0, or no table: none
    local_data: bool = False  # only holders may get a shard; otherwise they are only preferred

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
    lengths = np.full(deal.shards, UNKNOWN, dtype=np.int64)
    left = unfinished(deal)
    lengths[left] = coding.decode_table(deal.lengths) - 1
    if deal.longest:
        numbers, exact = np.split(coding.decode(deal.longest), 2)
        lengths[np.flatnonzero(left)[np.cumsum(numbers)]] = exact
    return lengths


def known_lengths(deal: StreamDeal) -> Ints:
    """Return each shard's length as far as the deal knows it exactly: what a member knows without reading."""
    lengths = dealt_lengths(deal)
    if not deal.longest:
        return lengths
    numbers, _ = np.split(coding.decode(deal.longest), 2)
    exact = np.flatnonzero(unfinished(deal))[np.cumsum(numbers)]
    known = np.where(lengths > 0, UNKNOWN, lengths)
    known[exact] = lengths[exact]
    return known


def holders_of(deal: StreamDeal) -> Ints:
    """Return the number of each shard's set of holders; −1 if it has none."""
    return coding.decode_table(deal.held_by) - 1 if deal.held_by else np.full(deal.shards, -1, dtype=np.int64)


def pending_rows(deal: StreamDeal, rank: int) -> Ranges:
    return Ranges.decode(deal.pending[rank])


def taken_rows(deal: StreamDeal) -> Ranges:
    """Return the rows that are not dealt anew: consumed ones of unfinished shards, and all ranks' pending ones."""
    parts = [Ranges.decode(code) for code in (deal.begun, *deal.pending) if code]
    bounds = np.concatenate([part.bounds for part in parts]) if parts else Ranges().bounds
    return Ranges.between_all(bounds[0::2], bounds[1::2])


def encode_lengths(lengths: Ints) -> tuple[bytes, bytes]:
    """Return a deal's table of lengths, those of unfinished shards, and its `longest`.

    If the exact table is too large, the lengths are rounded. Then the exact ones of the longest shards come along,
    since a shard can only be split by its exact length: their numbers (the first, then differences) and lengths.
    """
    lengths = np.maximum(lengths, UNKNOWN)
    exact = coding.encode_table(lengths + 1)
    if len(exact) <= EXACT_BYTES:
        return exact, b""
    longest = np.sort(np.argpartition(lengths, -_LONGEST)[-_LONGEST:])
    others = lengths.copy()
    others[longest] = 0
    table = coding.encode_table(rounded(others) + 1)
    return table, coding.encode(np.concatenate([np.diff(longest, prepend=0), lengths[longest]]))


def rounded(lengths: Ints) -> Ints:
    """Return the lengths with only a few distinct values, and nearly the same sum.

    Each length above 0 is replaced by the mean of those in its class, and the classes' bounds grow geometrically.
    """
    result = lengths.copy()
    some = np.flatnonzero(result > 0)
    logs = np.log2(result[some])
    low, high = logs.min(initial=64), logs.max(initial=0)
    classes = ((logs - low) / max(high - low, 1e-9) * (_LEVELS - 1e-6)).astype(np.int64)
    sums = np.bincount(classes, weights=result[some], minlength=_LEVELS)
    counts = np.bincount(classes, minlength=_LEVELS)
    result[some] = np.round(sums / np.maximum(counts, 1)).astype(np.int64)[classes]
    return result


def stream(deal: StreamDeal, *key: int) -> np.random.Generator:
    """Return the generator of one of the deal's random orders."""
    return np.random.default_rng((deal.seed, deal.epoch, deal.number, *key))
