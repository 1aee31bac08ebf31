"""Who gets which samples of the open epoch: a pure function of a small record that every member has."""

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

_OF_CHUNKS, _OF_RANKS = 0, 1  # two families of random streams


Sources = tuple[tuple[str, ...], ...]
"""For each chunk the members that have its data; empty as long as nobody has any."""


@dataclass(frozen=True)
class Deal:
    """What an epoch's unconsumed samples are dealt by. `lists` gives the positions themselves.

    number: counts deals; seed: not negative; samples: size of the training set; chunks: how many pieces it is cut
    into; consumed: bitmap of samples (see `pack`); holders: for each chunk the ranks that have it; shares: for
    each rank its relative speed, 0 for one that gets nothing new; pending: for each rank the positions of steps
    that it has taken but that no round has committed: they come first in its list, and nobody else gets them;
    local_data: only holders may get a chunk's samples (otherwise they go first).
    """

    number: int
    epoch: int
    seed: int
    samples: int
    chunks: int
    consumed: bytes
    holders: tuple[tuple[int, ...], ...]
    shares: tuple[float, ...]
    pending: tuple[tuple[int, ...], ...]
    local_data: bool = False


@lru_cache(maxsize=4)
def lists(deal: Deal) -> tuple[Ints, ...]:
    """Each rank's positions in the order to consume them: int64, read-only, one array a rank.

    Every position that is neither consumed nor pending is in exactly one list (see `uncovered` for the
    exception), the numbers of new ones in proportion to the shares: exactly, or as nearly as the holdings allow
    where `local_data`. Equal deals give equal lists in every process.

    >>> deal = Deal(1, 0, 7, 10, 2, pack(np.zeros(10, bool)), ((0,), (1,)), (1.0, 1.0), ((4,), ()))
    >>> [positions.tolist() for positions in lists(deal)]
    [[4, 5, 1, 0, 2, 3], [7, 6, 9, 8]]
    """
    return _lists(deal, range(len(deal.shares)))


@lru_cache(maxsize=4)
def own_list(deal: Deal, rank: int) -> Ints:
    """`lists(deal)[rank]`, from the chunks alone that the rank gets something of."""
    return _lists(deal, [rank])[0]


def lengths(deal: Deal) -> tuple[int, ...]:
    """How long each rank's list is, which takes no shuffling to know.

    >>> lengths(Deal(1, 0, 7, 10, 2, pack(np.zeros(10, bool)), ((0,), (1,)), (1.0, 1.0), ((4,), ())))
    (6, 4)
    """
    new = _amounts(deal, _counts(_open_chunks(deal))).sum(axis=0).tolist()
    return tuple(len(positions) + count for positions, count in zip(deal.pending, new, strict=True))


def uncovered(deal: Deal) -> tuple[int, ...]:
    """The chunks with positions left that nobody may take, and so are in no list.

    >>> uncovered(Deal(1, 0, 7, 4, 2, pack(np.zeros(4, bool)), ((0,), ()), (1.0,), ((),), local_data=True))
    (1,)
    """
    counts = _counts(_open_chunks(deal))
    return tuple(np.flatnonzero((counts > 0) & ~_eligible(deal).any(axis=1)).tolist())


def batch_bounds(length: int, start: int, batch_size: int) -> list[tuple[int, int]]:
    """Batches of the positions from `start` up to `length`, as (begin, end) pairs.

    A last batch smaller than half a batch joins the one before: tiny ones break BatchNorm. Raises InputError
    unless batch_size ≥ 1.

    >>> batch_bounds(9, 0, 4), batch_bounds(10, 0, 4)
    ([(0, 4), (4, 9)], [(0, 4), (4, 8), (8, 10)])
    """
    whole_number("batch_size", batch_size, at_least=1)
    edges = [*range(start, length, batch_size), length]
    if len(edges) > 2 and 2 * (edges[-1] - edges[-2]) < batch_size:
        del edges[-2]
    return [] if start >= length else list(pairwise(edges))


def scaled(batch_size: int, scale: float) -> int:
    """The batch size of a worker whose batches are `scale` times as large: at least 1.

    >>> scaled(16, 0.5), scaled(16, 1.3), scaled(1, 0.1)
    (8, 21, 1)
    """
    return max(1, round(batch_size * scale))


def pack(flags: npt.NDArray[np.bool_]) -> bytes:
    """A bitmap of `flags`, one bit each, the first in the lowest bit of the first byte."""
    return np.packbits(flags, bitorder="little").tobytes()


def unpack(bitmap: bytes, samples: int) -> Bools:
    """The first `samples` flags of a bitmap."""
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
    """For each chunk its positions that are neither consumed nor pending, in order."""
    taken = unpack(deal.consumed, deal.samples)
    for positions in deal.pending:
        taken[list(positions)] = True
    unset = np.flatnonzero(~taken).astype(np.int64)
    edges = np.searchsorted(unset, chunk_bounds(deal.samples, deal.chunks))
    return np.split(unset, edges[1:-1])


def _counts(chunks: Sequence[Ints]) -> Ints:
    return np.array([len(positions) for positions in chunks], dtype=np.int64)


def _eligible(deal: Deal) -> Bools:
    """Which ranks may take which chunks: (chunks, ranks)."""
    willing = np.array(deal.shares) > 0
    if deal.local_data:
        return as_mask(deal.holders, len(deal.shares)) & willing
    return np.broadcast_to(willing, (deal.chunks, len(willing)))


def _amounts(deal: Deal, counts: Ints) -> Ints:
    """How many positions of each chunk each rank gets: (chunks, ranks)."""
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
