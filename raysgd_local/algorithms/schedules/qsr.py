"""The quadratic synchronization rule: the period follows the learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.schedules.base import LONGEST, Observation, Period
from raysgd_local.serialization import from_plain


@dataclass(frozen=True)
class QSRState:
    """The period; no other state is needed."""

    period: Period


@dataclass(frozen=True)
class QSR:
    """Lengthen the period with the inverse square of the learning rate η:

        τ = max(base, ⌊(c/η)²⌋)

    η is the learning rate of the first parameter group. During warm-up, η is the rate that follows the warm-up. The
    first round has a period of `base`. A round always ends with the epoch, so a rate that falls to 0 can't make the
    last round longer than the training.

    Gu, Lyu, Arora, Zhang, Huang, "A Quadratic Synchronization Rule for Distributed Deep Learning", ICLR 2024 [F].
    `c` needs a search. Start with base^½ times the rate at which the period should begin to grow: with base = 4,
    twice that rate.

    Raises InputError unless c > 0 and base ≥ 1.

    >>> from dataclasses import replace
    >>> schedule = QSR(c=0.4, base=4)
    >>> seen = Observation(1, 2.0, 64, 64, 2, 0, elapsed_s=1, lr_decay=1, workers=2, lr=0.2)
    >>> [schedule.next(schedule.init(), replace(seen, lr=lr)).period.tau for lr in (0.2, 0.1, 0.05)]
    [4, 16, 64]
    """

    c: float = 0.2  # in units of the learning rate
    base: int = 4  # shortest period

    def __post_init__(self) -> None:
        validation.number("c", self.c, above=0)
        validation.whole_number("base", self.base, at_least=1)

    def init(self) -> QSRState:
        return QSRState(Period(self.base, why=f"base is {self.base}"))

    def next(self, state: QSRState, seen: Observation) -> QSRState:
        tau = max(self.base, self._tau(seen.lr))
        if tau == state.period.tau:
            return state
        return QSRState(Period(tau, why=f"the learning rate is {seen.lr:.3g}"))

    def restore(self, plain: dict[str, Any]) -> QSRState:
        return from_plain(QSRState, plain)

    def _tau(self, lr: float) -> int:
        if not lr > 0 or (self.c / lr) ** 2 > LONGEST:
            return LONGEST
        return math.floor((self.c / lr) ** 2 * (1 + 1e-6))  # the rate was rounded to float32, perhaps upwards
