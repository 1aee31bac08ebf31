"""Random-k: send elements drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.compression.base import kept

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class RandomK:
    """Send a share `ratio` of the elements, drawn at random for each message: 4 bytes an element.

    Indices are not sent: the receiver draws the same ones from the message's seed. With `memory` the elements are
    sent unscaled, and error feedback sends the rest later. Without, they are multiplied by d/k, so that the message
    is unbiased, with a high variance. (Both together would diverge, so there is no such option.)

    Stich, Cordonnier, Jaggi, "Sparsified SGD with Memory", NeurIPS 2018; Konečný et al., 2016 [K].

    Raises InputError unless 0 < ratio ≤ 1.
    """

    ratio: float = 0.01  # k/d
    memory: bool = True  # error feedback

    fine = False

    def __post_init__(self) -> None:
        validation.number("ratio", self.ratio, above=0, at_most=1)

    def encode(self, vector: Tensor, sizes: Sequence[int], seed: int) -> tuple[Tensor, ...]:  # noqa: ARG002
        drawn = self._drawn(vector.numel(), seed)
        return (vector[drawn] * (1.0 if self.memory else vector.numel() / len(drawn)),)

    def decode(self, parts: Sequence[Tensor], sizes: Sequence[int], seed: int) -> Tensor:
        (values,) = parts
        vector = values.new_zeros(sum(sizes))
        vector[self._drawn(vector.numel(), seed)] = values
        return vector

    def _drawn(self, numel: int, seed: int) -> NDArray[np.int64]:
        return np.random.default_rng(seed).choice(numel, kept(self.ratio, numel), replace=False, shuffle=False)
