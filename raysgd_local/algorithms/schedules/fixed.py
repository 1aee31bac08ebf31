"""A constant communication period."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.schedules.base import Observation, Period
from raysgd_local.serialization import from_plain


@dataclass(frozen=True)
class FixedPeriodState:
    """The constant period."""

    period: Period


@dataclass(frozen=True)
class FixedPeriod:
    """Average the parameters after every `tau` local steps.

    Known as local SGD (Stich, ICLR 2019), PASGD, K-AVG (Zhou & Cong, 2017), parallel restarted SGD (Yu et al.,
    AAAI 2019); SparkNet (Moritz et al., 2015) uses 50. With unequal data the fixed point moves away from the
    minimum as `tau` grows.

    Raises InputError unless `tau` is an integer of at least 1.

    >>> FixedPeriod(tau=8).init().period.tau
    8
    """

    tau: int = 16  # local steps between averagings

    def __post_init__(self) -> None:
        validation.whole_number("tau", self.tau, at_least=1)

    def init(self) -> FixedPeriodState:
        return FixedPeriodState(Period(self.tau, why=f"fixed period of {self.tau}"))

    def next(self, state: FixedPeriodState, seen: Observation) -> FixedPeriodState:  # noqa: ARG002 - a constant
        return state

    def restore(self, plain: dict[str, Any]) -> FixedPeriodState:
        return from_plain(FixedPeriodState, plain)
