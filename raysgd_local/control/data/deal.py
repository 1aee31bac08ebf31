"""The deal: assign the open epoch's remaining samples to ranks, by a pure function of a record on every member.

Where rounds go across epochs, so does a rank's list: its first part is of the open epoch, and each later epoch is
another part. An entry of a list is a sample's position in the training set, plus the set's size for each epoch that
follows the open one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
    # Only where rounds go across epochs:
    epochs: int = 0  # of the run: lists go on to the last one; 0: they end with the open epoch
    ahead: tuple[bytes, ...] = ()  # bitmaps of the samples that nobody gets in the epochs that follow the open one
    left: tuple[int, ...] = ()  # for each rank the first epoch of which it gets new samples: it left those before


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


@lru_cache(maxsize=8)
def lengths(deal: Deal) -> tuple[int, ...]:
    """Return the length of each rank's list, without shuffling.

    >>> lengths(Deal(1, 0, 7, 10, 2, pack(np.zeros(10, bool)), ((0,), (1,)), (1.0, 1.0), ((4,), ())))
    (6, 4)
    """
    new = _amounts(deal, _counts(_open_chunks(deal))).sum(axis=0).tolist()
    return tuple(len(positions) + count for positions, count in zip(deal.pending, new, strict=True))


@lru_cache(maxsize=8)
def later_lengths(deal: Deal) -> tuple[tuple[int, ...], ...]:
    """Return the lengths of the lists' later parts, by rank for each epoch; the last entry is that of all further ones.

    Empty if lists end with the open epoch.

    >>> later_lengths(Deal(1, 0, 7, 10, 1, pack(np.ones(10, bool)), ((0,),), (1.0, 1.0), ((), ()), epochs=3))
    ((5, 5),)
    """
    if not deal.epochs:
        return ()
    differ = max((first - deal.epoch - 1 for first in deal.left if first < deal.epochs), default=0)
    return tuple(lengths(part(deal, index)) for index in range(1, max(len(deal.ahead), differ) + 2))


def ends_at(deal: Deal, epoch: int) -> tuple[int, ...]:
    """Return for each rank the position at which `epoch` ends in its list.

    >>> deal = Deal(1, 0, 7, 10, 1, pack(np.ones(10, bool)), ((0,),), (1.0, 1.0), ((), ()), epochs=9)
    >>> ends_at(deal, 0), ends_at(deal, 3)
    ((0, 0), (15, 15))
    """
    if epoch < deal.epoch:
        return tuple(0 for _ in deal.shares)
    rows = later_lengths(deal)
    begun, fresh = rows[: epoch - deal.epoch], max(0, epoch - deal.epoch - len(rows))
    return tuple(
        end + sum(row[rank] for row in begun) + (fresh * rows[-1][rank] if fresh else 0)
        for rank, end in enumerate(lengths(deal))
    )


def dealt_batches(deal: Deal, rank: int, start: int, epoch: int, batch_size: int) -> Iterator[tuple[int, Ints]]:
    """Yield rank's batches from position `start` to the end of `epoch`: of each its epoch, and positions in the
    training set.

    A batch is of one epoch, so that the augmentation of a sample depends on nothing else.
    """
    for entries in own_entries(deal, rank, start, epoch - deal.epoch + 1):
        for begin, end in batch_bounds(len(entries), 0, batch_size):
            batch = entries[begin:end]
            epochs = batch // deal.samples
            for own in np.split(batch, np.flatnonzero(np.diff(epochs)) + 1):
                yield deal.epoch + int(own[0]) // deal.samples, own % deal.samples


def parts(deal: Deal) -> int:
    """Return the number of parts of the lists."""
    return max(1, deal.epochs - deal.epoch)


def part(deal: Deal, index: int) -> Deal:
    """Return the deal of the part `index` of the lists alone. Its entries are positions in the training set."""
    if index == 0:
        return deal
    none = pack(np.zeros(deal.samples, dtype=bool))
    return replace(
        deal,
        epoch=deal.epoch + index,
        consumed=deal.ahead[index - 1] if index <= len(deal.ahead) else none,
        pending=tuple(() for _ in deal.shares),
        epochs=0,
        ahead=(),
    )


def own_entries(deal: Deal, rank: int, start: int, parts: int) -> Iterator[Ints]:
    """Yield the entries of rank's list from position `start` to the end of its first `parts` parts, part by part.

    >>> deal = Deal(1, 0, 7, 4, 1, pack(np.zeros(4, bool)), ((0,),), (1.0, 1.0), ((), ()), epochs=2)
    >>> [entries.tolist() for entries in own_entries(deal, 0, 1, parts=2)]
    [[3], [7, 5]]
    """
    rows = (lengths(deal), *later_lengths(deal))
    index = 0
    while index < parts:
        length, fresh = rows[min(index, len(rows) - 1)][rank], index >= len(rows) - 1
        if fresh and not length:
            return
        if start < length:
            yield own_list(part(deal, index), rank)[max(0, start) :] + index * deal.samples
        skipped = max(1, start // length) if fresh else 1  # all further parts are equally long
        start, index = start - skipped * length, index + skipped


def next_entries(deal: Deal, rank: int, start: int, count: int) -> tuple[int, ...]:
    """Return the `count` entries of rank's list from position `start`, or all that there are."""
    found: list[int] = []
    runs = own_entries(deal, rank, start, parts(deal))
    while len(found) < count and (run := next(runs, None)) is not None:
        found += run[: count - len(found)].tolist()
    return tuple(found)


def consumed_entries(deal: Deal, cursors: Sequence[int], first: int) -> Iterator[Ints]:
    """Yield the entries of all ranks' lists up to their cursors, without those of the first `first` epochs."""
    rest = np.array(cursors, dtype=np.int64)
    rows = (lengths(deal), *later_lengths(deal))
    pending = any(entry >= first * deal.samples for entries in deal.pending for entry in entries)
    for index in range(parts(deal)):
        if not rest.any():
            return
        taken = np.minimum(rest, rows[min(index, len(rows) - 1)])
        if index >= first or (index == 0 and pending):
            for positions, count in zip(lists(part(deal, index)), taken.tolist(), strict=True):
                entries = positions[:count] + index * deal.samples
                yield entries[entries >= first * deal.samples]
        rest -= taken


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
    rows, columns = amounts[:, ranks].nonzero()  # of few ranks each: a loop over all pairs would be quadratic
    shuffled = {chunk: _stream(deal, _OF_CHUNKS, chunk).permutation(chunks[chunk]) for chunk in set(rows.tolist())}
    taken: dict[int, list[Ints]] = {rank: [] for rank in ranks}
    for chunk, rank in zip(rows.tolist(), np.array(ranks)[columns].tolist(), strict=True):
        stop = stops[chunk, rank]
        taken[rank].append(shuffled[chunk][stop - amounts[chunk, rank] : stop])
    return tuple(_list(deal, rank, parts) for rank, parts in taken.items())


def _open_chunks(deal: Deal) -> list[Ints]:
    """Return each chunk's positions that are neither consumed nor pending, in order."""
    taken = unpack(deal.consumed, deal.samples)
    for positions in deal.pending:
        taken[[position for position in positions if position < deal.samples]] = True
    unset = np.flatnonzero(~taken).astype(np.int64)
    edges = np.searchsorted(unset, chunk_bounds(deal.samples, deal.chunks))
    return np.split(unset, edges[1:-1])


def _counts(chunks: Sequence[Ints]) -> Ints:
    return np.array([len(positions) for positions in chunks], dtype=np.int64)


def _eligible(deal: Deal) -> Bools:
    """Return a mask of the ranks that may take each chunk's samples, (chunks, ranks)."""
    willing = np.array(deal.shares) > 0
    if deal.left:
        willing &= np.array(deal.left) <= deal.epoch
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
