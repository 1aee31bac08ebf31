"""Int8: eight bits per element, scaled by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.compression.base import blocks, largest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Int8:
    """Quantise each element to 255 levels between ± the largest magnitude of its block: a quarter of the bytes.

    The error is at most 1/254 of the block's largest magnitude.

    Linear quantisation as in QSGD (Alistarh et al., NeurIPS 2017) [K], with rounding to the nearest instead of at
    random, which error feedback makes up for.

    Raises InputError unless block ≥ 1.
    """

    block: int = 256  # elements with a common scale
    memory: bool = True  # error feedback

    fine = True

    def __post_init__(self) -> None:
        validation.whole_number("block", self.block, at_least=1)

    def encode(self, vector: Tensor, sizes: Sequence[int], seed: int) -> tuple[Tensor, ...]:  # noqa: ARG002
        rows = blocks(vector, self.block)
        scales = largest(rows) / 127
        return scales, (rows / scales).round().clamp(-127, 127).char().flatten()[: vector.numel()]

    def decode(self, parts: Sequence[Tensor], sizes: Sequence[int], seed: int) -> Tensor:  # noqa: ARG002
        scales, elements = parts
        return (blocks(elements, self.block).to(scales.dtype) * scales).flatten()[: sum(sizes)]
