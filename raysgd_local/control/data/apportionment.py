"""Apportionment: split the samples of chunks among the ranks that may take them, as fairly as the holders allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def apportion(total: int, shares: Floats) -> Ints:
    """Return integers in proportion to `shares` that sum to `total`: the largest remainder method. Ties go to lower
    ranks.

    >>> apportion(10, np.array([1.0, 1.0, 2.0]))
    array([3, 2, 5])
    """
    if total == 0 or shares.sum() == 0:
        return np.zeros(len(shares), dtype=np.int64)
    exact = total * (shares / shares.sum())
    parts: Ints = np.floor(exact).astype(np.int64)
    missing = total - int(parts.sum())
    parts[np.argsort(parts - exact, kind="stable")[:missing]] += 1
    return parts


def split_among_holders(counts: Ints, eligible: Bools, shares: Floats) -> Ints:
    """Split q chunks among m ranks, each rank getting samples only from chunks that it may take. Returns (q, m).

    counts: samples of each chunk, (q,). eligible: ranks that may take each chunk, (q, m), at least one for every
    chunk with samples. shares: (m,), all above 0.

    The ranks' totals are in proportion to shares if possible. Otherwise they are lexicographically fair: the highest
    total per share is as low as possible, then the next highest, and so on. Each chunk is spread over all its ranks
    if possible.

    If the shares are not feasible, a minimum cut finds the ranks whose chunks hold too many samples. These ranks split
    their chunks among themselves, and the others the rest (decomposition algorithm, Fujishige 1980).

    >>> split_among_holders(np.array([6, 2]), np.array([[True, False], [True, True]]), np.array([1.0, 1.0]))
    array([[6, 0],
           [0, 2]])
    """
    flow = route(counts, eligible, apportion(int(counts.sum()), shares))
    if flow.complete:
        return flow.amounts
    amounts = np.zeros(eligible.shape, dtype=np.int64)
    for chunks, ranks in ((flow.crowded_chunks, flow.crowded_ranks), (~flow.crowded_chunks, ~flow.crowded_ranks)):
        part = np.ix_(chunks, ranks)
        amounts[part] = split_among_holders(counts[chunks], eligible[part], shares[ranks])
    return amounts


def split_among_all(counts: Ints, preferred: Bools, shares: Floats) -> Ints:
    """Split as above, but with totals exactly in proportion: the excess of preferred ranks goes to the others."""
    targets = apportion(int(counts.sum()), shares)
    amounts = route(counts, preferred, targets).amounts
    return amounts + _northwest(counts - amounts.sum(axis=1), targets - amounts.sum(axis=0))


@dataclass(frozen=True)
class Flow:
    """A maximum flow from q chunks to m ranks, and the source's side of its minimum cut."""

    amounts: Ints  # (q, m) samples
    complete: bool  # whether all samples found a rank
    crowded_chunks: Bools  # (q,), on the source's side
    crowded_ranks: Bools  # (m,), on the source's side


def route(counts: Ints, eligible: Bools, targets: Ints) -> Flow:
    """Assign as many samples of `counts` as possible, with no rank above its target."""
    single = eligible.sum(axis=1).max(initial=0) <= 1
    return fill(counts, eligible, targets) if single else maximum_flow(counts, eligible, targets)


def fill(counts: Ints, eligible: Bools, targets: Ints) -> Flow:
    """Compute `route` if no chunk has more than one eligible rank: a simple fill suffices."""
    begun = _spread(counts, eligible, targets)
    left = np.where(eligible, counts[:, None] - begun, 0)
    before = left.cumsum(axis=0) - left
    amounts = begun + np.clip(targets - begun.sum(axis=0) - before, 0, left)
    crowded = (counts > amounts.sum(axis=1))[:, None] & eligible
    ranks = crowded.any(axis=0)
    return Flow(amounts, bool(amounts.sum() == counts.sum()), (eligible & ranks).any(axis=1), ranks)


def maximum_flow(counts: Ints, eligible: Bools, targets: Ints) -> Flow:
    """Compute `route` in general. It starts from an even spread, so that the result stays near that."""
    from scipy.sparse import csgraph  # takes a quarter of a second to import, and most runs don't need it

    begun = _spread(counts, eligible, targets)
    residual = _Residual(counts, eligible, targets, begun)
    source, sink = 0, 1 + len(counts) + len(targets)
    found = csgraph.maximum_flow(residual.graph(), source, sink)
    chunks, ranks = slice(1, 1 + len(counts)), slice(1 + len(counts), sink)
    amounts = begun + found.flow[chunks, ranks].toarray().astype(np.int64)
    left = _Residual(counts, eligible, targets, amounts).graph()
    reached = np.zeros(sink + 1, dtype=bool)
    reached[csgraph.breadth_first_order(left, source, return_predecessors=False)] = True
    return Flow(amounts, bool(amounts.sum() == counts.sum()), reached[chunks], reached[ranks])


@dataclass(frozen=True)
class _Residual:
    """The residual network of a flow: remaining capacity forward, the flow itself backward."""

    counts: Ints  # (q,) samples of each chunk
    eligible: Bools  # (q, m) ranks that may take each chunk
    targets: Ints  # (m,) most samples of each rank
    amounts: Ints  # (q, m) the flow

    def graph(self) -> object:
        """Return the capacities as a scipy CSR matrix, with the vertices source, q chunks, m ranks, sink."""
        from scipy.sparse import csr_matrix

        q, m = self.eligible.shape
        chunk, rank = np.nonzero(self.eligible)
        here = self.amounts[chunk, rank]
        edges = [
            (np.zeros(q, dtype=np.int64), 1 + np.arange(q), self.counts - self.amounts.sum(axis=1)),
            (1 + chunk, 1 + q + rank, self.counts[chunk] - here),
            (1 + q + rank, 1 + chunk, here),
            (1 + q + np.arange(m), np.full(m, 1 + q + m), self.targets - self.amounts.sum(axis=0)),
        ]
        tails, heads, rooms = (np.concatenate(column) for column in zip(*edges, strict=True))
        used = rooms > 0
        entries = (rooms[used].astype(np.int32), (tails[used], heads[used]))
        return csr_matrix(entries, shape=(q + m + 2, q + m + 2))


def _spread(counts: Ints, eligible: Bools, targets: Ints) -> Ints:
    """Spread each chunk over its ranks in proportion to their targets, with no rank above its target: (q, m)."""
    pull = eligible * targets.astype(np.float64)
    rows = pull.sum(axis=1, keepdims=True)
    even = np.divide(pull, rows, out=np.zeros_like(pull), where=rows > 0) * counts[:, None]
    totals = even.sum(axis=0)
    room = np.minimum(1.0, np.divide(targets, totals, out=np.ones_like(totals), where=totals > 0))
    amounts: Ints = np.floor(even * room * (1 - 1e-12)).astype(np.int64)
    return amounts


def _northwest(rows: Ints, columns: Ints) -> Ints:
    """Return a table with these row and column sums (of equal total), by the north-west corner rule."""
    edges = np.concatenate(([0], np.cumsum(rows))), np.concatenate(([0], np.cumsum(columns)))
    low = np.maximum(edges[0][:-1, None], edges[1][None, :-1])
    high = np.minimum(edges[0][1:, None], edges[1][None, 1:])
    overlaps: Ints = np.maximum(0, high - low)
    return overlaps


def as_mask(holders: Sequence[Sequence[int]], ranks: int) -> Bools:
    """Return the holders of each chunk as a mask, (chunks, ranks)."""
    mask = np.zeros((len(holders), ranks), dtype=bool)
    for chunk, row in enumerate(holders):
        mask[chunk, list(row)] = True
    return mask
