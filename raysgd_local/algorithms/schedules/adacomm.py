"""AdaComm: the communication period follows the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.schedules.base import Observation, Period
from raysgd_local.errors import InputError
from raysgd_local.serialization import from_plain


@dataclass(frozen=True)
class AdaCommState:
    """The period, the first round's values, and sums over the present interval."""

    period: Period
    first_loss: float = 0.0  # F_0, mean loss of the first round; 0 before it
    first_decay: float = 1.0  # s_0, decay factor in the first round
    decay: float = 1.0  # s at the beginning of the present interval
    began_s: float = 0.0  # training time at which the present interval began
    loss_sum: float = 0.0  # loss in the present interval, summed over samples
    samples: int = 0  # samples in the present interval


@dataclass(frozen=True)
class AdaComm:
    """Start with a long period and shorten it as the loss falls: little communication while the steps are still
    large, little drift near the end.

    Training time is cut into intervals of `interval_s` seconds (each ends with the first round that reaches it).
    With F_0 the first round's mean loss, F_l the mean over the interval that just ended, and s the learning
    rate's decay factor, the next interval's period is

        b_l = max(1, ⌈√((s_0/s_l)·(F_l/F_0))·τ_0⌉)
        τ_l = b_l                      if s changed in the interval, or b_l < τ_{l−1}
        τ_l = max(1, ⌊gamma·τ_{l−1}⌋)  otherwise

    Wang & Joshi, "Adaptive Communication Strategies to Achieve the Best Error-Runtime Trade-off in Local-Update
    SGD", MLSys 2019, section 4. There `interval_s` is 60 s, to be scaled to the run, and `tau0` comes from a
    search. Their theory has the cube of s_0/s_l; the first power is their heuristic. The second rule is their
    guard against a loss that stands still; it rests while the learning rate changes, or a decay could never
    lengthen the period. A first loss that is not positive leaves the ratio without meaning: `next` raises
    InputError. Later rounds without a finite loss are passed over.

    Raises InputError unless tau0 ≥ 1, interval_s > 0 and 0 < gamma ≤ 1.

    >>> schedule = AdaComm(tau0=16, interval_s=10)
    >>> state = schedule.init()
    >>> seen = Observation(1, 2.0, 64, 64, 2, 0, elapsed_s=1, lr_decay=1, workers=2)
    >>> for t, loss in enumerate((2.0, 0.25, 0.25), start=1):
    ...     state = schedule.next(state, replace(seen, loss=loss, elapsed_s=10 * t))
    ...     print(state.period.tau)
    8
    6
    3
    """

    tau0: int = 16  # first period
    interval_s: float = 60.0  # training time between adaptations
    gamma: float = 0.5  # factor on the period when the loss alone would not shorten it

    def __post_init__(self) -> None:
        validation.whole_number("tau0", self.tau0, at_least=1)
        validation.number("interval_s", self.interval_s, above=0)
        validation.number("gamma", self.gamma, above=0, at_most=1)

    def init(self) -> AdaCommState:
        return AdaCommState(Period(self.tau0, why=f"tau0 is {self.tau0}"))

    def next(self, state: AdaCommState, seen: Observation) -> AdaCommState:
        if seen.round_samples == 0:
            return state
        if state.first_loss == 0:
            state = _begin(state, seen)
        if not math.isfinite(seen.loss):
            return state
        state = replace(
            state,
            loss_sum=state.loss_sum + seen.loss * seen.round_samples,
            samples=state.samples + seen.round_samples,
        )
        return self._end_interval(state, seen) if seen.elapsed_s - state.began_s >= self.interval_s else state

    def restore(self, plain: dict[str, Any]) -> AdaCommState:
        return from_plain(AdaCommState, plain)

    def _end_interval(self, state: AdaCommState, seen: Observation) -> AdaCommState:
        period = self._adapt(state, seen.lr_decay)
        return replace(
            state,
            period=state.period if period.tau == state.period.tau else period,
            decay=seen.lr_decay,
            began_s=seen.elapsed_s,
            loss_sum=0.0,
            samples=0,
        )

    def _adapt(self, state: AdaCommState, decay: float) -> Period:
        tau = state.period.tau
        if decay <= 0:  # training stands still, and the rule is not defined
            return state.period
        loss_ratio = state.loss_sum / state.samples / state.first_loss
        scaled = math.sqrt(max(0.0, state.first_decay / decay * loss_ratio)) * self.tau0
        by_loss = max(1, math.ceil(scaled - 1e-9))
        because = f"the loss is {loss_ratio:.3g} of the first round's"
        if decay != state.decay:
            why = f"the learning rate is {decay / state.first_decay:.3g} and {because}"
            return Period(by_loss, why=why)
        if by_loss < tau:
            return Period(by_loss, why=because)
        why = f"{because}, which alone would not shorten the period: times {self.gamma:g}"
        return Period(max(1, math.floor(self.gamma * tau + 1e-9)), why=why)


def _begin(state: AdaCommState, seen: Observation) -> AdaCommState:
    if not (math.isfinite(seen.loss) and seen.loss > 0):
        hint = "AdaComm divides by it; use a non-negative loss, or FixedPeriod"
        raise InputError("loss", seen.loss, "a positive, finite mean loss in the first round", hint)
    return replace(state, first_loss=seen.loss, first_decay=seen.lr_decay, decay=seen.lr_decay)
