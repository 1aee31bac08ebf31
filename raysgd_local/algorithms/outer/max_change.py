"""Max change: limit the length of a round's mean step."""

from __future__ import annotations

from dataclasses import dataclass

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.outer.base import OuterStep


@dataclass(frozen=True)
class MaxChange:
    """Shorten the mean step g to a norm of at most `limit`:

        anchor ← anchor − g·min(1, limit/‖g‖)

    So one bad round can't undo the training.

    Povey, Zhang, Khudanpur, "Parallel Training of DNNs with Natural Gradient and Parameter Averaging", ICLR 2015
    workshop [S], where such a limit keeps the natural gradient stable. No default for a round is published.

    Raises InputError unless limit > 0.

    >>> MaxChange(2.0).step(workers=4, lr=0.1).max_norm
    2.0
    """

    limit: float  # Euclidean length over all parameters

    def __post_init__(self) -> None:
        validation.number("limit", self.limit, above=0)

    def step(self, workers: int, lr: float) -> OuterStep:  # noqa: ARG002
        return OuterStep("SGD", {"lr": 1.0}, max_norm=self.limit)
