"""Half precision, scaled by the block."""

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
    """Float16 relative to the largest element of each `block`: half the bytes, 3 digits.

    Plain float16 overflows at 65504 and loses what is below 6e-8; relative to its block nothing does that matters.
    The rest is remembered (`memory`), or forgotten.

    Raises InputError unless block ≥ 1.
    """

    block: int = 1024
    memory: bool = True

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
