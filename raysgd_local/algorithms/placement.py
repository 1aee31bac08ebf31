"""Which worker holds which part of the training set: a table that changes by the fewest moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from raysgd_local.algorithms import checks
from raysgd_local.algorithms.holders import HolderTable
from raysgd_local.algorithms.skew import Ints, dirichlet_order
from raysgd_local.errors import InputError

CHUNKS_PER_WORKER = 8  # loads differ by at most one chunk: an eighth of a worker's share


class ChunkPlacement:
    """Who holds which part of the training set. A frozen dataclass; by default every chunk has one holder.

    `chunks`: into how many pieces the set is cut, None for as many as suits the run. `expand_batch`: the batch size is
    multiplied by the copies.
    """

    chunks: int | None = None
    expand_batch: bool = False

    def copies_among(self, workers: int) -> int:  # noqa: ARG002
        """How many holders a chunk has among so many workers."""
        return 1

    def order(self, labels: Ints, bounds: Sequence[int], seed: int) -> Ints | None:  # noqa: ARG002
        """Which sample lies at which position; None: each at its own. Chunk c has bounds[c] up to bounds[c + 1]."""
        return None


@dataclass(frozen=True)
class DisjointChunks(ChunkPlacement):
    """Every chunk of the training set has one holder. When a holder dies, its chunks get new ones."""


@dataclass(frozen=True)
class LabelSkewed(ChunkPlacement):
    """Disjoint chunks whose labels differ, to study what unequal data does to a method.

    Each of `chunks` pieces draws its shares of labels from a Dirichlet distribution with concentration `alpha`: 100 is
    nearly even, 0.1 leaves a chunk with one or two labels. One chunk a worker makes workers most unlike; more even
    out. Workers get their own chunks' samples first; what is dealt anew after a death or by speed may be others'.

    Hsu, Qi, Brown, 2019 [K]; see `skew.dirichlet_order`.

    Raises InputError unless alpha > 0 and chunks ≥ 1.
    """

    alpha: float = 0.5
    chunks: int = 4

    def __post_init__(self) -> None:
        checks.number("alpha", self.alpha, above=0)
        checks.whole_number("chunks", self.chunks, at_least=1)

    def order(self, labels: Ints, bounds: Sequence[int], seed: int) -> Ints:
        return dirichlet_order(labels, bounds, self.alpha, seed)


@dataclass(frozen=True)
class RedundantChunks(ChunkPlacement):
    """Every chunk has several holders (fewer while fewer workers live), on distinct nodes where there are enough.

    After RI-SGD (Haddadpour et al., "Trading Redundancy for Communication", ICML 2019): say how many `copies`, by
    default 2, or the published `redundancy` μ: beside its own chunk a worker has μ·p of the other p − 1 workers', so
    there are 1 + μ·p copies. Any copies − 1 losses leave every chunk held, and workers see more diverse batches. Each
    sample is dealt once an epoch, to one of its holders. As published the batch grows with the copies, a part for each
    chunk: `expand_batch` multiplies the batch size by them; otherwise it stays, and so does the number of steps.
    `chunks` is into how many pieces the training set is cut: as published one a worker, by default more.

    Raises InputError for both, for `copies` or `chunks` below 1, and for a `redundancy` outside of (0, 1].

    >>> RedundantChunks(redundancy=0.25).copies_among(8), RedundantChunks().copies_among(8)
    (3, 2)
    """

    copies: int | None = None
    redundancy: float | None = None
    chunks: int | None = None
    expand_batch: bool = False

    def __post_init__(self) -> None:
        if self.copies is not None:
            checks.whole_number("copies", self.copies, at_least=1)
        if self.chunks is not None:
            checks.whole_number("chunks", self.chunks, at_least=1)
        if self.redundancy is not None:
            checks.number("redundancy", self.redundancy, above=0, at_most=1)
        if self.copies is not None and self.redundancy is not None:
            raise InputError("redundancy", self.redundancy, "copies or redundancy, not both")
        if self.copies is None and self.redundancy is None:
            object.__setattr__(self, "copies", 2)

    def copies_among(self, workers: int) -> int:
        """How many holders a chunk has among so many workers."""
        if self.copies is not None:
            return min(workers, self.copies)
        return min(workers, 1 + round((self.redundancy or 0.0) * workers))


PLACEMENTS: Mapping[str, type[ChunkPlacement]] = MappingProxyType(
    {"disjoint": DisjointChunks, "redundant": RedundantChunks, "label-skewed": LabelSkewed}
)
"""From the kind that a configuration names to the class with its options."""


@dataclass(frozen=True)
class Worker:
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

    def held_by(self, worker: str) -> tuple[int, ...]:
        """The chunks that `worker` has."""
        return tuple(chunk for chunk, holders in enumerate(self.holders) if worker in holders)


def rebalance(placement: Placement, live: Sequence[Worker], copies: int) -> Placement:
    """The table after the set of live workers became `live`; the same for the same arguments in any order.

    Every chunk gets min(copies, live workers) holders, on as many distinct nodes as there are for them; then
    loads are made equal to within one, or as nearly as the nodes allow. No table that achieves this has fewer copies
    that have to be fetched: a plain join moves ⌊chunks·copies/workers⌋, a plain death only replaces what was lost.

    >>> table = rebalance(Placement.empty(4), [Worker("a", "n1"), Worker("b", "n2")], copies=1)
    >>> sorted(table.loads.items())
    [('a', 2), ('b', 2)]
    >>> alone = rebalance(table, [Worker("a", "n1")], copies=1)
    >>> moves(table, alone) == tuple((chunk, "a") for chunk in table.held_by("b"))
    True
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


def moves(old: Placement, new: Placement) -> tuple[tuple[int, str], ...]:
    """The copies that `new` has and `old` had not, as (chunk, worker): what has to be fetched."""
    return tuple(
        (chunk, worker)
        for chunk, (before, after) in enumerate(zip(old.holders, new.holders, strict=True))
        for worker in after
        if worker not in before
    )


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
