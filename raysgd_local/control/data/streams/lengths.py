"""Lengths of shards: known when a worker has read a shard to its end, and at least bounded while it reads."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.streams import coding

UNKNOWN = -1
"""The length of a shard that was not read to its end. A bound, −1 − n, says that there are at least n rows."""

EXACT_BYTES = 1 << 18
"""A deal says how long shards are in at most so many bytes. If their lengths need more, it has only rounded ones."""

Lengths = tuple[tuple[int, int], ...]
"""Numbers of shards, ascending, and for each a length or a bound."""

_LEVELS = 6  # distinct rounded lengths; with 0 and unknown 8, so that a length takes 3 bits
_LONGEST = 4096  # shards whose lengths are exact nevertheless


def with_lengths(lengths: Ints, more: Mapping[int, int]) -> Ints:
    """Return `lengths` with those in `more`, which may also be bounds (see `UNKNOWN`), where they are not known."""
    if not more:
        return lengths
    shards, found = np.array(list(more), dtype=np.int64), np.array(list(more.values()), dtype=np.int64)
    before, result = lengths[shards], lengths.copy()
    result[shards] = np.where(before >= 0, before, np.where(found >= 0, found, np.minimum(before, found)))
    return result


def merged(*found: Mapping[int, int]) -> dict[int, int]:
    """Return for each shard the best of what several workers found out: its length, or else the highest bound.

    >>> merged({0: 7, 1: -5}, {0: -4, 1: -9})
    {0: 7, 1: -9}
    """
    best: dict[int, int] = {}
    for shard, length in (item for lengths in found for item in lengths.items()):
        before = best.get(shard, UNKNOWN)
        best[shard] = max(before, length) if max(before, length) >= 0 else min(before, length)
    return best


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
