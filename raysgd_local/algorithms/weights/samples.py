"""Weights by samples, as in FedAvg: the default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raysgd_local.algorithms.weights.base import Weights


@dataclass(frozen=True)
class Samples(Weights):
    """Weigh each member by the samples that it trained on in the round: p_i = n_i / Σ_j n_j.

    >>> Samples().weight(samples=64, reach=2.0)
    64.0
    """

    plain = True

    def weight(self, samples: int, reach: float) -> float:  # noqa: ARG002
        return float(samples)

    def stretch(self, samples: Sequence[int], weights: Sequence[float]) -> float:  # noqa: ARG002
        return 1.0
