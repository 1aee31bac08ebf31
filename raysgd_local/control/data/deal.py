"""The deal: assign the open epoch's remaining samples to ranks, by a pure function of a record on every member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from raysgd_local.algorithms.placement.table import chunk_bounds
from raysgd_local.algorithms.validation import whole_number
from raysgd_local.control.data.apportionment import Bools, Ints, as_mask, split_among_all, split_among_holders

_OF_CHUNKS, _OF_RANKS = 0, 1  # families of random streams: one shuffles each chunk, the other each rank's list


Sources = tuple[tuple[str, ...], ...]
"""For each chunk the members that have its data; empty until some member has data."""


@dataclass(frozen=True)
class Deal:
    """The inputs from which an epoch's remaining samples are dealt to ranks. `lists` computes the result."""

    number: int  # counts the deals of a run, from 1
    epoch: int
    seed: int  # not negative
    samples: int  # size of the training set
    chunks: int  # number of pieces into which the training set is cut
    consumed: bytes  # bitmap of consumed samples (see `pack`)
    holders: tuple[tuple[int, ...], ...]  # for each chunk, the ranks that have it
    shares: tuple[float, ...]  # for each rank its relative speed; 0: it gets no new samples
    pending: tuple[
        tuple[int, ...], ...
    ]  # for each rank, positions of its uncommitted steps: first in its own list
    local_data: bool = False  # only holders may get a chunk's samples; otherwise they are only preferred


@lru_cache(maxsize=4)
def lists(deal: Deal) -> tuple[Ints, ...]:
    """Return each rank's positions in the order to consume them: one read-only int64 array per rank.

    Every position that is neither consumed nor pending is in exactly one list (`uncovered` has the exception). The
    numbers of new positions are in proportion to the shares: exactly, or if `local_data`, as nearly as the holders
    allow. Equal deals give equal lists in every process.

    >>> deal = Deal(1, 0, 7, 10, 2, pack(np.zeros(10, bool)), ((0,), (1,)), (1.0, 1.0), ((4,), ()))
    >>> [positions.tolist() for positions in lists(deal)]
    [[4, 5, 1, 0, 2, 3], [7, 6, 9, 8]]
    """
    return _lists(deal, range(len(deal.shares)))


@lru_cache(maxsize=4)
def own_list(deal: Deal, rank: int) -> Ints:
    """Return `lists(deal)[rank]`, without shuffling chunks of which the rank gets nothing."""
    return _lists(deal, [rank])[0]


def lengths(deal: Deal) -> tuple[int, ...]:
    """Return the length of each rank's list, without shuffling.

    >>> lengths(Deal(1, 0, 7, 10, 2, pack(np.zeros(10, bool)), ((0,), (1,)), (1.0, 1.0), ((4,), ())))
    (6, 4)
    """
    new = _amounts(deal, _counts(_open_chunks(deal))).sum(axis=0).tolist()
    return tuple(len(positions) + count for positions, count in zip(deal.pending, new, strict=True))


def uncovered(deal: Deal) -> tuple[int, ...]:
    """Return the chunks with remaining positions that no rank may take, and that are therefore in no list.

    >>> uncovered(Deal(1, 0, 7, 4, 2, pack(np.zeros(4, bool)), ((0,), ()), (1.0,), ((),), local_data=True))
    (1,)
    """
    counts = _counts(_open_chunks(deal))
    return tuple(np.flatnonzero((counts > 0) & ~_eligible(deal).any(axis=1)).tolist())


def batch_bounds(length: int, start: int, batch_size: int) -> list[tuple[int, int]]:
    """Cut the positions from `start` up to `length` into batches, as (begin, end) pairs.

    A last batch smaller than half a batch is joined to the one before, because tiny batches break BatchNorm. Raises
    InputError unless batch_size ≥ 1.

    >>> batch_bounds(9, 0, 4), batch_bounds(10, 0, 4)
    ([(0, 4), (4, 9)], [(0, 4), (4, 8), (8, 10)])
    """
    whole_number("batch_size", batch_size, at_least=1)
    edges = [*range(start, length, batch_size), length]
    if len(edges) > 2 and 2 * (edges[-1] - edges[-2]) < batch_size:
        del edges[-2]
    return [] if start >= length else list(pairwise(edges))


def scaled(batch_size: int, scale: float) -> int:
    """Return the batch size times `scale`, rounded, at least 1.

    >>> scaled(16, 0.5), scaled(16, 1.3), scaled(1, 0.1)
    (8, 21, 1)
    """
    return max(1, round(batch_size * scale))


def pack(flags: npt.NDArray[np.bool_]) -> bytes:
    """Pack `flags` into a bitmap, one bit each, the first in the lowest bit of the first byte."""
    return np.packbits(flags, bitorder="little").tobytes()


def unpack(bitmap: bytes, samples: int) -> Bools:
    """Return the first `samples` flags of a bitmap."""
    packed = np.frombuffer(bitmap, dtype=np.uint8)
    return np.unpackbits(packed, count=samples, bitorder="little").astype(bool)


def _lists(deal: Deal, ranks: Sequence[int]) -> tuple[Ints, ...]:
    chunks = _open_chunks(deal)
    amounts = _amounts(deal, _counts(chunks))
    stops = amounts.cumsum(axis=1)
    taken: dict[int, list[Ints]] = {rank: [] for rank in ranks}
    for chunk in np.flatnonzero(amounts[:, ranks].any(axis=1)).tolist():
        shuffled = _stream(deal, _OF_CHUNKS, chunk).permutation(chunks[chunk])
        for rank, parts in taken.items():
            parts.append(shuffled[stops[chunk, rank] - amounts[chunk, rank] : stops[chunk, rank]])
    return tuple(_list(deal, rank, parts) for rank, parts in taken.items())


def _open_chunks(deal: Deal) -> list[Ints]:
    """Return each chunk's positions that are neither consumed nor pending, in order."""
    taken = unpack(deal.consumed, deal.samples)
    for positions in deal.pending:
        taken[list(positions)] = True
    unset = np.flatnonzero(~taken).astype(np.int64)
    edges = np.searchsorted(unset, chunk_bounds(deal.samples, deal.chunks))
    return np.split(unset, edges[1:-1])


def _counts(chunks: Sequence[Ints]) -> Ints:
    return np.array([len(positions) for positions in chunks], dtype=np.int64)


def _eligible(deal: Deal) -> Bools:
    """Return a mask of the ranks that may take each chunk's samples, (chunks, ranks)."""
    willing = np.array(deal.shares) > 0
    if deal.local_data:
        return as_mask(deal.holders, len(deal.shares)) & willing
    return np.broadcast_to(willing, (deal.chunks, len(willing)))


def _amounts(deal: Deal, counts: Ints) -> Ints:
    """Return the number of positions of each chunk that each rank gets, (chunks, ranks)."""
    eligible = _eligible(deal)
    rows, ranks = np.flatnonzero((counts > 0) & eligible.any(axis=1)), np.flatnonzero(eligible.any(axis=0))
    amounts = np.zeros(eligible.shape, dtype=np.int64)
    if len(rows) == 0:
        return amounts
    shares, part = np.array(deal.shares, dtype=np.float64)[ranks], np.ix_(rows, ranks)
    if deal.local_data:
        amounts[part] = split_among_holders(counts[rows], eligible[part], shares)
    else:
        preferred = as_mask(deal.holders, len(deal.shares))[part]
        amounts[part] = split_among_all(counts[rows], preferred, shares)
    return amounts


def _list(deal: Deal, rank: int, parts: Sequence[Ints]) -> Ints:
    new = np.concatenate([np.empty(0, dtype=np.int64), *parts])
    shuffled = _stream(deal, _OF_RANKS, rank).permutation(new)
    positions = np.concatenate([np.array(deal.pending[rank], dtype=np.int64), shuffled])
    positions.flags.writeable = False
    return positions


def _stream(deal: Deal, family: int, index: int) -> np.random.Generator:
    return np.random.default_rng((deal.seed, deal.epoch, deal.number, family, index))
