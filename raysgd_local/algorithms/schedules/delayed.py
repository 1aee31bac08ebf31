"""Delayed averaging: training goes on while the averaging is under way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.schedules.base import Observation, Period, Schedule
from raysgd_local.algorithms.schedules.fixed import FixedPeriod
from raysgd_local.algorithms.schedules.modes import modes
from raysgd_local.errors import InputError
from raysgd_local.serialization import from_plain


@dataclass(frozen=True)
class DelayedState:
    """The period, with its delay, and the inner schedule's state."""

    period: Period
    every: Any  # state of the schedule `every`


@dataclass(frozen=True)
class Delayed:
    """Average as often as `every` does, but go on for up to `delay` local steps while the averaging is under way; then

        x_i ← A + (x_i − x_i^t),

    where x_i^t are member i's parameters when the averaging began, and A is its result. A good `delay` lasts as long
    as an averaging takes. It is cut to τ − 1, so that one averaging ends before the next begins. With 0 this equals
    `every`.

    With a hierarchical schedule only the averagings over all members are delayed; those inside blocks are quick.

    Known as delayed, or time-delayed, updates: Zhu, Lu, Lin, Han, "Distributed Training Across the World", NeurIPS
    workshop on systems for machine learning, 2019 [S]; with d = τ it is CoCoD-SGD (Shen et al., IJCAI 2019) [K].

    Raises InputError unless `every` averages parameters and nothing else, and delay ≥ 0.

    >>> Delayed(FixedPeriod(8), delay=4).init().period.delay
    4
    """

    every: Schedule = field(default_factory=FixedPeriod)  # decides when to average
    delay: int = 4  # local steps while an averaging is under way

    def __post_init__(self) -> None:
        validation.schedule("every", self.every)
        validation.whole_number("delay", self.delay, at_least=0)
        if not modes(self.every) <= {"parameters", "partial"}:
            hint = "only a mean of all members' parameters can be applied later"
            allowed = "a schedule that averages parameters, such as fixed, adacomm or hierarchical"
            raise InputError("every", type(self.every).__name__, allowed, hint)

    def init(self) -> DelayedState:
        return self._after(self.every.init())

    def next(self, state: DelayedState, seen: Observation) -> DelayedState:
        return self._after(self.every.next(state.every, seen))

    def restore(self, plain: dict[str, Any]) -> DelayedState:
        return DelayedState(from_plain(Period, plain["period"]), self.every.restore(plain["every"]))

    def _after(self, every: Any) -> DelayedState:
        period: Period = every.period
        if period.mode == "partial":
            return DelayedState(period, every)
        delay = min(self.delay, period.tau - 1)
        return DelayedState(replace(period, delay=delay, why=f"{period.why}, applied {delay} steps later"), every)
