"""The largest elements alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysgd_local.algorithms import checks
from raysgd_local.algorithms.compression.base import kept
from raysgd_local.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TopK:
    """The share `ratio` of elements with the largest magnitude, each with its position: 8 bytes an element.

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
        checks.number("ratio", self.ratio, above=0, at_most=1)
        if not self.memory:
            raise InputError("memory", self.memory, "true", "without it the largest elements alone diverge")

    def encode(self, vector: Tensor, sizes: Sequence[int], seed: int) -> tuple[Tensor, ...]:  # noqa: ARG002
        positions = vector.abs().topk(kept(self.ratio, vector.numel()), sorted=False).indices
        return vector[positions], positions.int()

    def decode(self, parts: Sequence[Tensor], sizes: Sequence[int], seed: int) -> Tensor:  # noqa: ARG002
        values, positions = parts
        vector = values.new_zeros(sum(sizes))
        vector[positions.long()] = values
        return vector
