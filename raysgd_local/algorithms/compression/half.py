"""Half precision, scaled by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.compression.base import blocks, largest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Half:
    """Send float16 values relative to the largest magnitude of their block: half the bytes, 3 decimal digits.

    Plain float16 overflows above 65504 and flushes values below 6e-8 to 0; relative to the block's largest value
    neither matters.

    Raises InputError unless block ≥ 1.
    """

    block: int = 1024  # elements with a common scale
    memory: bool = True  # error feedback

    fine = True

    def __post_init__(self) -> None:
        validation.whole_number("block", self.block, at_least=1)

    def encode(self, vector: Tensor, sizes: Sequence[int], seed: int) -> tuple[Tensor, ...]:  # noqa: ARG002
        rows = blocks(vector, self.block)
        scales = largest(rows)
        return scales, (rows / scales).half().flatten()[: vector.numel()]

    def decode(self, parts: Sequence[Tensor], sizes: Sequence[int], seed: int) -> Tensor:  # noqa: ARG002
        scales, elements = parts
        return (blocks(elements, self.block).to(scales.dtype) * scales).flatten()[: sum(sizes)]
