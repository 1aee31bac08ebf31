"""The largest elements alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.compression.base import kept
from raysgd_local.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_PAGE = 1 << 16


@dataclass(frozen=True)
class TopK:
    """The share `ratio` of elements with the largest magnitude, each with its position: 6 bytes an element.

    Positions are told by pages of 65,536 elements: how many are in each page, and where in the page each is.

    The rest is remembered. Without memory it diverges on the simplest of problems (Karimireddy et al., below,
    section 3), so there is no such option.

    Aji & Heafield, "Sparse Communication for Distributed Gradient Descent", EMNLP 2017; Stich, Cordonnier, Jaggi,
    "Sparsified SGD with Memory", NeurIPS 2018; Karimireddy, Rebjock, Stich, Jaggi, "Error Feedback Fixes SignSGD and
    other Gradient Compression Schemes", ICML 2019 [K].

    Raises InputError unless 0 < ratio ≤ 1, and for `memory` other than true.
    """

    ratio: float = 0.01
    memory: bool = True

    fine = False

    def __post_init__(self) -> None:
        validation.number("ratio", self.ratio, above=0, at_most=1)
        if not self.memory:
            raise InputError("memory", self.memory, "true", "without it the largest elements alone diverge")

    def encode(self, vector: Tensor, sizes: Sequence[int], seed: int) -> tuple[Tensor, ...]:  # noqa: ARG002
        positions = vector.abs().topk(kept(self.ratio, vector.numel()), sorted=False).indices.sort().values
        counts = (positions // _PAGE).bincount(minlength=_pages(vector.numel())).int()
        return vector[positions], (positions % _PAGE - _PAGE // 2).short(), counts

    def decode(self, parts: Sequence[Tensor], sizes: Sequence[int], seed: int) -> Tensor:  # noqa: ARG002
        values, places, counts = parts
        pages = (counts.new_ones(len(counts)).cumsum(0) - 1).repeat_interleave(counts)
        vector = values.new_zeros(sum(sizes))
        vector[pages * _PAGE + places.long() + _PAGE // 2] = values
        return vector


def _pages(numel: int) -> int:
    return -(-numel // _PAGE)
