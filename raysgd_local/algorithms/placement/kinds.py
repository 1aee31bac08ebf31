"""The kinds of placement: the number of holders of each chunk, and the order of samples in chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.placement.label_skew import Ints, dirichlet_order
from raysgd_local.errors import InputError


class ChunkPlacement:
    """Decides which worker holds which part (chunk) of the training set. By default every chunk has one holder.

    A frozen dataclass.
    """

    chunks: int | None = None  # number of chunks; None: chosen from the number of workers
    expand_batch: bool = False  # multiply the batch size by the number of copies

    def copies_among(self, workers: int) -> int:  # noqa: ARG002
        """Return the number of holders of each chunk among this many workers."""
        return 1

    def order(self, labels: Ints, bounds: Sequence[int], seed: int) -> Ints | None:  # noqa: ARG002
        """Return the sample index for each position, (n,); None for the data set's own order.

        Chunk c has the positions from bounds[c] up to bounds[c + 1].
        """
        return None


@dataclass(frozen=True)
class DisjointChunks(ChunkPlacement):
    """Every chunk of the training set has one holder. When a holder dies, its chunks get new ones."""


@dataclass(frozen=True)
class LabelSkewed(ChunkPlacement):
    """Form disjoint chunks whose labels differ, to study methods on unequal data.

    Each chunk draws its label proportions from a Dirichlet distribution. Workers differ most with one chunk per
    worker; several even out. A worker gets the samples of its own chunks first, but samples that are dealt again
    after a failure, or to balance speeds, may come from other workers' chunks.

    Hsu, Qi, Brown, 2019 [K]; see `label_skew.dirichlet_order`.

    Raises InputError unless alpha > 0 and chunks ≥ 2: a single chunk would have the labels of the whole set.
    """

    alpha: float = 0.5  # concentration: 100 is nearly even, 0.1 leaves one or two labels per chunk
    chunks: int = 4

    def __post_init__(self) -> None:
        validation.number("alpha", self.alpha, above=0)
        validation.whole_number("chunks", self.chunks, at_least=1)
        if self.chunks == 1:
            hint = "a single chunk is the whole training set, so labels are not skewed: one chunk per worker skews most"
            raise InputError("chunks", self.chunks, "an integer of at least 2", hint)

    def order(self, labels: Ints, bounds: Sequence[int], seed: int) -> Ints:
        return dirichlet_order(labels, bounds, self.alpha, seed)


@dataclass(frozen=True)
class RedundantChunks(ChunkPlacement):
    """Give every chunk several holders, on distinct nodes if there are enough; fewer while fewer workers are alive.

    After RI-SGD (Haddadpour et al., "Trading Redundancy for Communication", ICML 2019). With c copies, any c − 1
    failures leave every chunk with a holder, and workers see more diverse batches. Each sample is still dealt once per
    epoch, to one of its holders. The paper has one chunk per worker, and batches that grow with the copies (set
    `expand_batch`); by default there are more chunks, and the batch size and number of steps stay.

    Raises InputError if `copies` and `redundancy` are both given, for `copies` or `chunks` below 1, and for a
    `redundancy` outside (0, 1].

    >>> RedundantChunks(redundancy=0.25).copies_among(8), RedundantChunks().copies_among(8)
    (3, 2)
    """

    copies: int | None = None  # holders of each chunk; 2 if `redundancy` is not given either
    redundancy: float | None = None  # the paper's μ: among p workers there are 1 + μ·p copies
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
        """Return the number of holders of each chunk among this many workers."""
        if self.copies is not None:
            return min(workers, self.copies)
        return min(workers, 1 + round((self.redundancy or 0.0) * workers))


PLACEMENTS: Mapping[str, type[ChunkPlacement]] = MappingProxyType(
    {"disjoint": DisjointChunks, "redundant": RedundantChunks, "label-skewed": LabelSkewed}
)
"""The classes by their `kind` in configurations."""
