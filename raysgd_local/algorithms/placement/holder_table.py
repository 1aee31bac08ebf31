"""The table of holders while it is being changed: the work behind `placement.rebalance`."""

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
    """Chunks (q) × workers (m), with the nodes of the workers; dead holders are dropped on the way in.

    Call `trim`, `fill`, `spread`, `balance` in this order: each leaves what the ones before achieved. Ties are
    broken by a hash of chunk and worker, so that no two workers hold the same neighbouring chunks (data that lies
    sorted by label would make such sets far worse than random ones).
    """

    def __init__(self, holders: Sequence[Sequence[str]], workers: Sequence[str], nodes: Sequence[str]) -> None:
        self.workers = tuple(workers)
        node_names, self.node_of = np.unique(np.array(nodes), return_inverse=True)  # node_of: (m,)
        self.nodes = len(node_names)
        self.holds: Bools = np.zeros((len(holders), len(workers)), dtype=bool)  # (q, m)
        column = {worker: index for index, worker in enumerate(workers)}
        for chunk, names in enumerate(holders):
            self.holds[chunk, [column[name] for name in names if name in column]] = True
        self.had: Bools = self.holds.copy()  # at the beginning: nothing else has to be fetched
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
        """Move copies that share a node to nodes that the chunk has none on, as long as there are any."""
        enough = min(wanted, self.nodes)
        for chunk in _where((self.copies_on > 0).sum(axis=1) < enough):
            for _ in range(enough - int((self.copies_on[chunk] > 0).sum())):
                source = self._dispensable(chunk)
                self._place(chunk, self.copies_on[chunk, self.node_of] == 0)
                self._remove(chunk, source)

    def balance(self) -> None:
        """Make the loads as equal as the nodes allow, with the fewest copies that have to be fetched.

        Which chunks may go where without losing a node is a flow network, the loads' inequality a convex cost, and a
        copy that its holder did not have costs one. The steps before fetch what they must and no more, and taking the
        cheapest chain of moves from the most loaded each time keeps it so (successive shortest paths): when none is
        left that makes the loads more equal, nothing as equal costs less.
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
        """The cheapest chain from a most loaded worker, of those that can, to one with at least two chunks less."""
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
        """What it costs at least that `source` gives a chunk to each worker (m,); infinite where it can give none."""
        chunks = np.flatnonzero(self.holds[:, source])
        least: Floats = self._gifts(chunks, source).min(axis=0, initial=np.inf)
        return least

    def _gift(self, source: int, target: int) -> int:
        """The chunk that `source` gives `target`: one that costs least."""
        chunks = np.flatnonzero(self.holds[:, source])
        costs = self._gifts(chunks, source)[:, target]
        return int(chunks[np.lexsort((self._ties(chunks, source), costs))[0]])

    def _gifts(self, chunks: Ints, source: int) -> Floats:
        """What it costs that `source` gives each of `chunks` to each worker; infinite where that loses a node."""
        home = self.node_of[source]
        stays = (self.copies_on[chunks, home] >= 2)[:, None] | (self.node_of == home)[None, :]
        opens = self.copies_on[np.ix_(chunks, self.node_of)] == 0
        allowed = ~self.holds[chunks] & (stays | opens)  # (chunks, m)
        fetched = (~self.had[chunks]).astype(float)
        return np.where(allowed, fetched - fetched[:, [source]], np.inf)

    def _dispensable(self, chunk: int) -> int:
        """The holder to lose a copy: one that shares its node, then just placed, then the most loaded."""
        holders = np.flatnonzero(self.holds[chunk])
        alone = self.copies_on[chunk, self.node_of[holders]] == 1
        keys = (self._ties(chunk, holders), -self.loads[holders], self.had[chunk, holders], alone)
        return int(holders[np.lexsort(keys)[0]])

    def _place(self, chunk: int, allowed: Bools) -> None:
        candidates = np.flatnonzero(allowed)
        # Without the salt a worker that was unlucky with a chunk's first copy would be so with its second.
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
    """The lengths of the cheapest chains from any of `sources` to each worker, and who comes before it in one.

    Bellman and Ford's search; a chain that is followed round costs nothing or more, so it ends. Of chains that cost
    the same the shortest counts: its moves don't get in each other's way, since two moves of one chunk that did would
    imply a shortcut that costs no more.
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
