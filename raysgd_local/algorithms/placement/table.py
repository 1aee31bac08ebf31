"""Which worker holds which part of the training set: a table that changes by the fewest moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from raysgd_local.algorithms.placement.holder_table import HolderTable

CHUNKS_PER_WORKER = 8  # loads differ by at most one chunk: an eighth of a worker's share


@dataclass(frozen=True)
class ChunkHolder:
    """A live worker and the node it runs on."""

    id: str
    node: str


@dataclass(frozen=True)
class Placement:
    """The table of holders: for each chunk, the ids of the workers that have it, sorted.

    >>> Placement.empty(3).holders
    ((), (), ())
    """

    holders: tuple[tuple[str, ...], ...]

    @classmethod
    def empty(cls, chunks: int) -> Placement:
        return cls(((),) * chunks)

    @property
    def chunks(self) -> int:
        return len(self.holders)

    @property
    def loads(self) -> dict[str, int]:
        """How many chunks each holder has."""
        return dict(Counter(worker for holders in self.holders for worker in holders))


def rebalance(placement: Placement, live: Sequence[ChunkHolder], copies: int) -> Placement:
    """The table after the set of live workers became `live`; the same for the same arguments in any order.

    Every chunk gets min(copies, live workers) holders, on as many distinct nodes as there are for them; then
    loads are made equal to within one, or as nearly as the nodes allow. No table that achieves this has fewer copies
    that have to be fetched: a plain join moves ⌊chunks·copies/workers⌋, a plain death only replaces what was lost.

    >>> table = rebalance(Placement.empty(4), [ChunkHolder("a", "n1"), ChunkHolder("b", "n2")], copies=1)
    >>> sorted(table.loads.items())
    [('a', 2), ('b', 2)]
    >>> rebalance(table, [ChunkHolder("a", "n1")], copies=1).loads
    {'a': 4}
    """
    workers = sorted(live, key=lambda worker: worker.id)
    if not workers:
        return Placement.empty(placement.chunks)
    table = HolderTable(placement.holders, [w.id for w in workers], [w.node for w in workers])
    wanted = min(copies, len(workers))
    table.trim(wanted)
    table.fill(wanted)
    table.spread(wanted)
    table.balance()
    return Placement(table.holders())


def default_chunks(max_workers: int, samples: int) -> int:
    """Into how many chunks to cut `samples`: enough that `max_workers` share evenly, none empty.

    >>> default_chunks(4, 60_000), default_chunks(4, 10)
    (32, 10)
    """
    return max(1, min(CHUNKS_PER_WORKER * max_workers, samples))


def chunk_bounds(samples: int, chunks: int) -> tuple[int, ...]:
    """Edges of the chunks, chunks + 1 of them: chunk c has the positions from edge c up to edge c + 1.

    >>> chunk_bounds(10, 4)
    (0, 2, 5, 7, 10)
    """
    return tuple(chunk * samples // chunks for chunk in range(chunks + 1))
