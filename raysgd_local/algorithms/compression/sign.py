"""Sign compression: send one bit per element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysgd_local.algorithms.compression.base import blocks
from raysgd_local.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Sign:
    """Send the sign of each element (+ for 0), and for each tensor the mean magnitude ‖c‖₁/n: one bit per element.

    Always with error feedback: without it, sign compression does not converge (Karimireddy et al., section 3).

    Seide, Fu, Droppo, Li, Yu, "1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed
    Training of Speech DNNs", Interspeech 2014; Karimireddy, Rebjock, Stich, Jaggi, "Error Feedback Fixes SignSGD and
    other Gradient Compression Schemes", ICML 2019 [K].

    Raises InputError for `memory` other than true.
    """

    memory: bool = True

    fine = False

    def __post_init__(self) -> None:
        if not self.memory:
            raise InputError("memory", self.memory, "true", "without error feedback, signs alone do not converge")

    def encode(self, vector: Tensor, sizes: Sequence[int], seed: int) -> tuple[Tensor, ...]:  # noqa: ARG002
        parts = _split(vector, sizes)
        means = [part.abs().mean() if len(part) else part.sum() for part in parts]
        scales = vector.new_tensor([float(mean) for mean in means])
        bits = (blocks(vector, 8) >= 0).byte() << _places(vector)
        return scales, bits.sum(1).byte()

    def decode(self, parts: Sequence[Tensor], sizes: Sequence[int], seed: int) -> Tensor:  # noqa: ARG002
        scales, packed = parts
        bits = (packed.unsqueeze(1) >> _places(scales)) & 1
        vector = bits.flatten()[: sum(sizes)].to(scales.dtype) * 2 - 1
        for part, scale in zip(_split(vector, sizes), scales, strict=True):
            part.mul_(scale)
        return vector


def _split(vector: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = vector.split(list(sizes))  # type: ignore[no-untyped-call]
    return parts


def _places(like: Tensor) -> Tensor:
    return like.new_tensor(range(8)).byte()
