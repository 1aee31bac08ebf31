"""FedNova: members that take unequal numbers of steps count by how far these go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raysgd_local.algorithms.weights.base import Weights


@dataclass(frozen=True)
class FedNova(Weights):
    """Each member's step is divided by its reach ‖a_i‖₁, and the mean of these is multiplied by the mean reach:

        x ← anchor − τ_eff·Σ_i p_i (anchor − x_i)/‖a_i‖₁,  τ_eff = Σ_i p_i ‖a_i‖₁,  p_i = n_i / Σ_j n_j

    so that members with more steps, or more momentum, do not pull the fixed point towards their own data. One
    reduction: a member counts n_i/‖a_i‖₁, and the mean step is multiplied by Σn‖a‖·Σ(n/‖a‖)/(Σn)². With equal steps it
    is the plain mean. The reach of τ steps of SGD is τ; with heavy-ball momentum ρ from a reset buffer
    [τ − ρ(1−ρ^τ)/(1−ρ)]/(1−ρ); with Nesterov's τ + ρ·that.

    Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated
    Optimization", NeurIPS 2020 [K]; the form with one reduction is derived [D]. The steps have to be linear in the
    gradients: other optimizers than SGD, clipping, and momentum that is kept from round to round are refused.

    >>> nova = FedNova()
    >>> weights = [nova.weight(60, reach=6.0), nova.weight(20, reach=2.0)]
    >>> weights, nova.stretch([60, 20], weights)
    ([10.0, 10.0], 1.25)
    """

    def weight(self, samples: int, reach: float) -> float:
        return samples / reach if samples and reach > 0 else 0.0

    def stretch(self, samples: Sequence[int], weights: Sequence[float]) -> float:
        pairs = [(n, w) for n, w in zip(samples, weights, strict=True) if w > 0]
        reached = math.fsum(n * n / w for n, w in pairs)  # n·‖a‖, as n/‖a‖ is the weight
        total = sum(n for n, _ in pairs)
        return reached * math.fsum(w for _, w in pairs) / total**2 if total else 1.0


def reach(steps: int, momentum: float = 0.0, nesterov: bool = False) -> float:
    """How far `steps` steps of SGD at rate 1 go with a gradient of 1, the momentum buffer empty at first.

    >>> reach(7), round(reach(7, momentum=0.9), 4), round(reach(7, momentum=0.9, nesterov=True), 4)
    (7.0, 23.0467, 27.742)
    """
    gone = velocity = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1.0
        gone += 1.0 + momentum * velocity if nesterov else velocity
    return gone
