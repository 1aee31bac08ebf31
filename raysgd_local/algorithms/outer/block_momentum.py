"""Block momentum: BMUF, and NBM with Nesterov momentum."""

from __future__ import annotations

from dataclasses import dataclass

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.outer.base import OuterStep


@dataclass(frozen=True)
class BlockMomentum:
    """Filter the mean steps g of the rounds with momentum:

        v ← b·v + g,  anchor ← anchor − ζ·v;   with `nesterov`  anchor ← anchor − ζ·(g + b·v)

    By default b = 1 − 1/m for m workers, and changes with m; with a single worker the anchor becomes the mean and v
    is reset. With `nesterov` the anchor is the look-ahead point.

    Chen & Huo, "Scalable Training of Deep Learning Machines by Incremental Block Training with Intra-block Parallel
    Optimization and Blockwise Model-Update Filtering", ICASSP 2016 [K]. With the default b and ζ = 1 a constant g is
    amplified to ζ/(1−b) = m times itself [D]: scaling the learning rate linearly with m as well would do it twice,
    and is refused. Wang & Joshi (MLSys 2019) also reset local momentum each round: `optimizer_state: reset`.

    Raises InputError unless zeta > 0 and 0 < momentum < 1.

    >>> BlockMomentum().step(workers=4, lr=0.1).options
    {'lr': 1.0, 'momentum': 0.75, 'nesterov': False}
    """

    zeta: float = 1.0  # ζ, block learning rate
    momentum: float | None = None  # b; None: 1 − 1/m
    nesterov: bool = False

    def __post_init__(self) -> None:
        validation.number("zeta", self.zeta, above=0)
        if self.momentum is not None:
            validation.number("momentum", self.momentum, above=0, below=1)

    def step(self, workers: int, lr: float) -> OuterStep | None:  # noqa: ARG002
        momentum = 1 - 1 / workers if self.momentum is None else self.momentum
        if momentum == 0:
            return None
        return OuterStep("SGD", {"lr": self.zeta, "momentum": momentum, "nesterov": self.nesterov})
