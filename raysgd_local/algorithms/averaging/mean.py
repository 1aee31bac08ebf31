"""Plain averaging, of all members or of some that are drawn at random each round."""

from __future__ import annotations

from dataclasses import dataclass

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.averaging.base import Averaging


@dataclass(frozen=True)
class Mean(Averaging):
    """Set all members to the weighted mean, x_i ← Σ_j p_j x_j, or to the anchor that the outer step computes from it.

    With a `fraction` C below 1 this is federated averaging: each round ⌈C·m⌉ members, drawn at random among those
    with data left in the epoch, take the round's steps; the others wait, and receive the result.

    McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from
    Decentralized Data", AISTATS 2017 [K].

    Raises InputError unless 0 < fraction ≤ 1.
    """

    fraction: float = 1.0  # C, share of the members that take steps in a round

    def __post_init__(self) -> None:
        validation.number("fraction", self.fraction, above=0, at_most=1)
