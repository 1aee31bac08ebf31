"""What a placement can be: how many holders each chunk has, and which samples lie together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.placement.label_skew import Ints, dirichlet_order
from raysgd_local.errors import InputError


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
        validation.number("alpha", self.alpha, above=0)
        validation.whole_number("chunks", self.chunks, at_least=1)

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
            validation.whole_number("copies", self.copies, at_least=1)
        if self.chunks is not None:
            validation.whole_number("chunks", self.chunks, at_least=1)
        if self.redundancy is not None:
            validation.number("redundancy", self.redundancy, above=0, at_most=1)
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
