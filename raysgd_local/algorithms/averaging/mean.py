"""Plain averaging, of all members or of some that are drawn anew each round."""

from __future__ import annotations

from dataclasses import dataclass

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.averaging.base import Averaging


@dataclass(frozen=True)
class Mean(Averaging):
    """All members become the weighted mean, or what the outer step makes of it: x_i ← Σ_j p_j x_j.

    With a `fraction` C below 1 this is federated averaging: ⌈C·m⌉ members, drawn anew each round among those that
    have data left in the epoch, take the round's steps; the others wait, and take the result.

    McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from
    Decentralized Data", AISTATS 2017 [K].

    Raises InputError unless 0 < fraction ≤ 1.
    """

    fraction: float = 1.0

    def __post_init__(self) -> None:
        validation.number("fraction", self.fraction, above=0, at_most=1)
