"""The table of holders while it is being changed: the work behind `placement.rebalance`."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
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
        self.placed: Bools = np.zeros_like(self.holds)  # copies placed just now: moving them costs nothing
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
        """Move copies from loaded to less loaded workers until no chain of moves makes the loads more equal.

        Which chunks may go where without losing a node is a flow network, and the loads' inequality a convex
        cost: when no improving chain is left, the loads are the best that the nodes allow.
        """
        while path := self._improving_path():
            for chunk, source, target in path:
                self._remove(chunk, source)
                self._add(chunk, target)

    def _improving_path(self) -> list[Move]:
        """The shortest chain of moves from a most loaded worker to one with at least two chunks less.

        A shortest chain's moves are each allowed at its beginning and don't get in each other's way: two moves of
        one chunk that did would imply a shortcut.
        """
        settled = np.zeros(len(self.workers), dtype=bool)  # can't reach a worker that is loaded less
        ranked = np.lexsort((~self.placed.any(axis=0), -self.loads))
        for load in range(int(self.loads.max()), int(self.loads.min()) + 1, -1):
            sources = [int(w) for w in ranked if self.loads[w] == load and not settled[w]]
            if path := self._search(sources, load - 2, settled):
                return path
        return []

    def _search(self, sources: list[int], load: int, settled: Bools) -> list[Move]:
        """Breadth first from `sources` to a worker with at most `load`; what it reached is settled if it fails."""
        came: dict[int, Move] = {}
        layer = sources
        settled[sources] = True
        while layer:
            following: list[int] = []
            for worker in layer:
                targets, chunks = self._gifts(worker)
                for target, chunk in zip(targets[~settled[targets]], chunks[~settled[targets]], strict=True):
                    came[int(target)] = (int(chunk), worker, int(target))
                    following.append(int(target))
                settled[targets] = True
                if any(self.loads[target] == self.loads.min() for target in following):
                    break  # no other could be better
            layer = sorted(following, key=lambda worker: self.loads[worker])
            if layer and self.loads[layer[0]] <= load:
                return _trace(came, layer[0])
        return []

    def _gifts(self, source: int) -> tuple[Ints, Ints]:
        """Whom `source` may give a chunk without a chunk losing a node, and which one each: just placed first."""
        chunks = np.flatnonzero(self.holds[:, source])
        order = np.lexsort((self._ties(chunks, source), ~self.placed[chunks, source]))
        chunks = chunks[order]
        home = self.node_of[source]
        stays = (self.copies_on[chunks, home] >= 2)[:, None] | (self.node_of == home)[None, :]
        opens = self.copies_on[np.ix_(chunks, self.node_of)] == 0
        allowed = ~self.holds[chunks] & (stays | opens)  # (chunks of source, m)
        targets = np.flatnonzero(allowed.any(axis=0))
        return targets, chunks[allowed[:, targets].argmax(axis=0)] if len(targets) else targets

    def _dispensable(self, chunk: int) -> int:
        """The holder to lose a copy: one that shares its node, then just placed, then the most loaded."""
        holders = np.flatnonzero(self.holds[chunk])
        alone = self.copies_on[chunk, self.node_of[holders]] == 1
        keys = (self._ties(chunk, holders), -self.loads[holders], ~self.placed[chunk, holders], alone)
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
        self.holds[chunk, worker] = self.placed[chunk, worker] = True
        self.copies_on[chunk, self.node_of[worker]] += 1
        self.loads[worker] += 1

    def _remove(self, chunk: int, worker: int) -> None:
        self.holds[chunk, worker] = self.placed[chunk, worker] = False
        self.copies_on[chunk, self.node_of[worker]] -= 1
        self.loads[worker] -= 1


def _trace(came: dict[int, Move], target: int) -> list[Move]:
    path = []
    while target in came:
        path.append(came[target])
        target = came[target][1]
    return path


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
