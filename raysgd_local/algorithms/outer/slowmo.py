"""SlowMo: slow momentum over the rounds, in the units of the local learning rate."""

from __future__ import annotations

from dataclasses import dataclass

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.outer.base import OuterStep


@dataclass(frozen=True)
class SlowMo:
    """Apply momentum to the mean steps g, divided by the local learning rate γ at the round's first step:

        u ← β·u + g/γ,  anchor ← anchor − α·γ·u

    so that u keeps its scale when γ decays. β = 0, α = 1 is plain averaging. In a round with γ = 0 the anchor becomes
    the mean and u is reset.

    Wang, Tantia, Ballas, Rabbat, "SlowMo: Improving Communication-Efficient Distributed SGD with Slow Momentum",
    ICLR 2020 [F]: β from 0.2 with 4 nodes to 0.6 with 16, α = 1. Local momentum is theirs to reset or keep.

    Raises InputError unless alpha > 0 and 0 ≤ beta < 1.

    >>> SlowMo(beta=0.5).step(workers=4, lr=0.25)
    OuterStep(optimizer='SGD', options={'lr': 0.25, 'momentum': 0.5}, scale=4.0, max_norm=None)
    """

    beta: float = 0.2  # β, slow momentum
    alpha: float = 1.0  # α, slow learning rate

    def __post_init__(self) -> None:
        validation.number("alpha", self.alpha, above=0)
        if self.beta != 0:
            validation.number("beta", self.beta, above=0, below=1)

    def step(self, workers: int, lr: float) -> OuterStep | None:  # noqa: ARG002
        if lr <= 0:
            return None
        return OuterStep("SGD", {"lr": self.alpha * lr, "momentum": self.beta}, scale=1 / lr)
