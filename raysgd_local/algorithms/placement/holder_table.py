"""A mutable table of the holders of each chunk: the algorithm behind `placement.table.rebalance`."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

Move = tuple[int, int, int]  # chunk, from worker, to worker


class HolderTable:
    """A table of q chunks × m workers, with the workers' nodes. Holders that are not in `workers` are dropped.

    Call `trim`, `fill`, `spread`, `balance` in this order: none undoes the work of those before. Ties are broken by
    a hash of chunk and worker, so that workers don't get runs of neighbouring chunks: in data sorted by label such
    runs would have far fewer labels than random chunks.
    """

    def __init__(self, holders: Sequence[Sequence[str]], workers: Sequence[str], nodes: Sequence[str]) -> None:
        self.workers = tuple(workers)
        node_names, self.node_of = np.unique(np.array(nodes), return_inverse=True)  # node_of: (m,)
        self.nodes = len(node_names)
        self.holds: Bools = np.zeros((len(holders), len(workers)), dtype=bool)  # (q, m)
        column = {worker: index for index, worker in enumerate(workers)}
        for chunk, names in enumerate(holders):
            self.holds[chunk, [column[name] for name in names if name in column]] = True
        self.had: Bools = self.holds.copy()  # (q, m): copies that were there already; all others must be fetched
        self.copies_on: Ints = np.zeros((len(holders), self.nodes), dtype=np.int64)  # (q, nodes)
        for index, node in enumerate(self.node_of):
            self.copies_on[:, node] += self.holds[:, index]
        self.loads: Ints = self.holds.sum(axis=0)  # (m,)
        self._worker_hash: Hashes = np.array([_hash(worker) for worker in workers], dtype=np.uint64)

    def holders(self) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(self.workers[i] for i in np.flatnonzero(row)) for row in self.holds)

    def trim(self, wanted: int) -> None:
        """Drop copies beyond `wanted`: those that share a node first, then from the most loaded."""
        for chunk in _where(self.holds.sum(axis=1) > wanted):
            for _ in range(int(self.holds[chunk].sum()) - wanted):
                self._remove(chunk, self._dispensable(chunk))

    def fill(self, wanted: int) -> None:
        """Place missing copies, chunks with the fewest first, on the least loaded worker; new nodes go first."""
        for copies in range(wanted):
            chunks = np.flatnonzero(self.holds.sum(axis=1) == copies)
            for chunk in chunks[np.argsort(_mix(chunks.astype(np.uint64) ^ _salt(copies)))].tolist():
                elsewhere = self.copies_on[chunk, self.node_of] == 0
                lacking = ~self.holds[chunk]
                self._place(chunk, lacking & elsewhere if elsewhere.any() else lacking)

    def spread(self, wanted: int) -> None:
        """Move copies that share a node to nodes without a copy of the chunk, as long as there are any."""
        enough = min(wanted, self.nodes)
        for chunk in _where((self.copies_on > 0).sum(axis=1) < enough):
            for _ in range(enough - int((self.copies_on[chunk] > 0).sum())):
                source = self._dispensable(chunk)
                self._place(chunk, self.copies_on[chunk, self.node_of] == 0)
                self._remove(chunk, source)

    def balance(self) -> None:
        """Make the loads as equal as the nodes allow, with as few fetched copies as possible.

        This is a minimum-cost flow: edges are the moves of chunks between workers that don't reduce a chunk's number
        of nodes, a fetched copy costs one, and unequal loads have a convex cost. The steps before this one fetch no
        more than necessary. Each iteration takes the cheapest chain of moves away from the most loaded workers
        (successive shortest paths), so when no chain makes the loads more equal, no table with equal loads is cheaper.
        """
        if self.loads.max() - self.loads.min() < 2:
            return
        costs = np.stack([self._costs(worker) for worker in range(len(self.workers))])
        while path := self._improving_path(costs):
            for chunk, source, target in path:
                self._remove(chunk, source)
                self._add(chunk, target)
            sources = {source for _, source, _ in path}
            for worker in sources.union(*(_where(self.holds[chunk]) for chunk, _, _ in path)):
                costs[worker] = self._costs(worker)

    def _improving_path(self, costs: Floats) -> list[Move]:
        """Return the cheapest chain of moves from a worker of the highest possible load to one with at least two chunks
        less; empty if there is none.
        """
        for load in np.unique(self.loads)[::-1]:
            lengths, before = _cheapest(costs, self.loads == load)
            lengths[self.loads > load - 2] = np.inf
            target = int(np.lexsort((self.loads, lengths))[0])
            if lengths[target] < np.inf:
                return self._trace(before, target)
        return []

    def _trace(self, before: Ints, target: int) -> list[Move]:
        path: list[Move] = []
        while (source := int(before[target])) >= 0:
            path.append((self._gift(source, target), source, target))
            target = source
        return path

    def _costs(self, source: int) -> Floats:
        """Return the lowest cost at which `source` can give a chunk to each worker, (m,); infinite if it can't."""
        chunks = np.flatnonzero(self.holds[:, source])
        least: Floats = self._gifts(chunks, source).min(axis=0, initial=np.inf)
        return least

    def _gift(self, source: int, target: int) -> int:
        """Return the chunk that `source` can give `target` at the lowest cost."""
        chunks = np.flatnonzero(self.holds[:, source])
        costs = self._gifts(chunks, source)[:, target]
        return int(chunks[np.lexsort((self._ties(chunks, source), costs))[0]])

    def _gifts(self, chunks: Ints, source: int) -> Floats:
        """Return the cost of moving each of `chunks` from `source` to each worker, (chunks, m); infinite if the chunk
        would be on fewer nodes, or the worker has it.
        """
        home = self.node_of[source]
        stays = (self.copies_on[chunks, home] >= 2)[:, None] | (self.node_of == home)[None, :]
        opens = self.copies_on[np.ix_(chunks, self.node_of)] == 0
        allowed = ~self.holds[chunks] & (stays | opens)  # (chunks, m)
        fetched = (~self.had[chunks]).astype(float)
        return np.where(allowed, fetched - fetched[:, [source]], np.inf)

    def _dispensable(self, chunk: int) -> int:
        """Choose the holder that loses its copy: one that shares a node, then one just placed, then the most loaded."""
        holders = np.flatnonzero(self.holds[chunk])
        alone = self.copies_on[chunk, self.node_of[holders]] == 1
        keys = (self._ties(chunk, holders), -self.loads[holders], self.had[chunk, holders], alone)
        return int(holders[np.lexsort(keys)[0]])

    def _place(self, chunk: int, allowed: Bools) -> None:
        candidates = np.flatnonzero(allowed)
        # Salted by the number of copies: otherwise a worker that lost the tie for the first copy loses the second too.
        ties = _mix(self._ties(chunk, candidates) ^ _salt(int(self.holds[chunk].sum())))
        keys = (ties, self.loads[candidates])
        self._add(chunk, int(candidates[np.lexsort(keys)[0]]))

    def _ties(self, chunks: Ints | int, workers: Ints | int) -> Hashes:
        return _mix(np.asarray(chunks).astype(np.uint64) ^ self._worker_hash[workers])

    def _add(self, chunk: int, worker: int) -> None:
        self.holds[chunk, worker] = True
        self.copies_on[chunk, self.node_of[worker]] += 1
        self.loads[worker] += 1

    def _remove(self, chunk: int, worker: int) -> None:
        self.holds[chunk, worker] = False
        self.copies_on[chunk, self.node_of[worker]] -= 1
        self.loads[worker] -= 1


def _cheapest(costs: Floats, sources: Bools) -> tuple[Floats, Ints]:
    """Return the costs of the cheapest chains from any of `sources` to each worker, (m,), and each one's predecessor.

    Bellman-Ford; it ends because no cycle has a negative cost. Among chains of equal cost the one with the fewest
    moves wins. Its moves can't conflict: if two moves of one chunk did, there would be a shortcut that costs no more.
    """
    steps = costs * len(sources) + 1.0
    lengths, before = np.where(sources, 0.0, np.inf), np.full(len(sources), -1)
    nearer = np.flatnonzero(sources)
    while len(nearer):
        through = lengths[nearer, None] + steps[nearer]
        better = np.flatnonzero(through.min(axis=0) < lengths)
        last = through[:, better].argmin(axis=0)
        lengths[better], before[better] = through[last, better], nearer[last]
        nearer = better
    return lengths, before


def _where(mask: Bools) -> list[int]:
    return [int(index) for index in np.flatnonzero(mask)]


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _salt(number: int) -> np.uint64:
    return np.uint64((number + 1) << 48)


def _mix(values: Hashes) -> Hashes:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
