"""FedNova: normalise the steps of members that take unequal numbers of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raysgd_local.algorithms.weights.base import Weights


@dataclass(frozen=True)
class FedNova(Weights):
    """Divide each member's step by its reach ‖a_i‖₁, and multiply the mean of these by the mean reach:

        x ← anchor − τ_eff·Σ_i p_i (anchor − x_i)/‖a_i‖₁,  τ_eff = Σ_i p_i ‖a_i‖₁,  p_i = n_i / Σ_j n_j

    so that members with more steps, or more momentum, don't pull the fixed point towards their own data. It takes
    one reduction: a member's weight is n_i/‖a_i‖₁, and the mean step is multiplied by Σn‖a‖·Σ(n/‖a‖)/(Σn)². With
    equal steps this is the plain mean. The reach of τ steps of SGD is τ; with heavy-ball momentum ρ from a reset
    buffer it is [τ − ρ(1−ρ^τ)/(1−ρ)]/(1−ρ); with Nesterov momentum τ + ρ times that.

    Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated
    Optimization", NeurIPS 2020 [K]; the form with one reduction is derived here [D]. The steps must be linear in the
    gradients: optimizers other than SGD, clipping, and momentum kept from round to round are refused.

    >>> nova = FedNova()
    >>> weights = [nova.weight(60, reach=6.0), nova.weight(20, reach=2.0)]
    >>> weights, nova.stretch([60, 20], weights)
    ([10.0, 10.0], 1.25)
    """

    def weight(self, samples: int, reach: float) -> float:
        return samples / reach if samples and reach > 0 else 0.0

    def stretch(self, samples: Sequence[int], weights: Sequence[float]) -> float:
        pairs = [(n, w) for n, w in zip(samples, weights, strict=True) if w > 0]
        reached = math.fsum(n * n / w for n, w in pairs)  # Σ n·‖a‖, since the weight is n/‖a‖
        total = sum(n for n, _ in pairs)
        return reached * math.fsum(w for _, w in pairs) / total**2 if total else 1.0


def reach(steps: int, momentum: float = 0.0, nesterov: bool = False) -> float:
    """Return the distance that `steps` steps of SGD at rate 1 move with a gradient of 1, from an empty momentum buffer.

    >>> reach(7), round(reach(7, momentum=0.9), 4), round(reach(7, momentum=0.9, nesterov=True), 4)
    (7.0, 23.0467, 27.742)
    """
    gone = velocity = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1.0
        gone += 1.0 + momentum * velocity if nesterov else velocity
    return gone
