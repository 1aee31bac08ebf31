"""LUPA-SGD: a communication period that grows, by the round or by the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.schedules.base import Observation, Period
from raysgd_local.errors import InputError
from raysgd_local.serialization import from_plain


@dataclass(frozen=True)
class LupaLinearState:
    """The period, and the progress through the planned rounds."""

    period: Period
    rounds: int = 0  # rounds done in which at least one worker took a step


@dataclass(frozen=True)
class LupaLinear:
    """Lengthen the period by the same amount each round, so that `rounds` rounds have exactly `steps` local steps.

        τ_i = ⌊C_{i+1} + ½⌋ − ⌊C_i + ½⌋,  C_i = τ_0·(i + α·i(i−1)/2),  α = 2(steps/τ_0 − rounds)/(rounds(rounds−1))

    for round i from 0. After these rounds the last period stays. Rounds that end early, with an epoch, count too.

    Haddadpour, Kamani, Mahdavi, Cadambe, "Local SGD with Periodic Averaging: Tighter Analysis and Adaptive
    Synchronization", NeurIPS 2019, section 4 [F]. The paper's α overshoots `steps`; this α and the rounding are
    derived here [D]. The paper's theory (for a loss that falls linearly) asks for growing periods; AdaComm's theory
    asks for shrinking ones.

    Raises InputError unless tau0 ≥ 1, rounds ≥ 2 and steps ≥ rounds·tau0.

    >>> schedule = LupaLinear(tau0=91, steps=5000, rounds=10)
    >>> [schedule.tau(i) for i in range(10)]
    [91, 182, 273, 363, 455, 545, 637, 727, 818, 909]
    """

    tau0: int = 4  # period of the first round
    steps: int = 1000  # local steps per worker in all planned rounds
    rounds: int = 50  # planned rounds

    def __post_init__(self) -> None:
        validation.whole_number("tau0", self.tau0, at_least=1)
        validation.whole_number("rounds", self.rounds, at_least=2)
        validation.whole_number("steps", self.steps, at_least=self.rounds * self.tau0)

    def tau(self, index: int) -> int:
        """The period of round `index`, from 0."""
        index = min(index, self.rounds - 1)
        return _rounded(self._steps_before(index + 1)) - _rounded(self._steps_before(index))

    def init(self) -> LupaLinearState:
        return LupaLinearState(Period(self.tau(0), why=f"tau0 is {self.tau0}"))

    def next(self, state: LupaLinearState, seen: Observation) -> LupaLinearState:
        if seen.round_samples == 0:
            return state
        rounds = state.rounds + 1
        tau = self.tau(rounds)
        if tau == state.period.tau:
            return replace(state, rounds=rounds)
        return LupaLinearState(Period(tau, why=f"round {rounds} of {self.rounds} is next, from 0"), rounds)

    def restore(self, plain: dict[str, Any]) -> LupaLinearState:
        return from_plain(LupaLinearState, plain)

    def _steps_before(self, index: int) -> float:
        slope = 2 * (self.steps / self.tau0 - self.rounds) / (self.rounds * (self.rounds - 1))
        return self.tau0 * (index + slope * index * (index - 1) / 2)


def _rounded(steps: float) -> int:
    return math.floor(steps + 0.5 + 1e-9)  # the sum of all periods comes out exact


@dataclass(frozen=True)
class LupaLossState:
    """The period, and the loss that later ones are compared with."""

    period: Period
    first_loss: float = 0.0  # F_0, mean loss of the first round; 0 before it


@dataclass(frozen=True)
class LupaLoss:
    """Lengthen the period as the loss falls, by the cube root of the ratio of the first round's loss to it:

        τ_i = ⌈(F_0/F_i)^⅓⌉·τ_0,  or with `smooth`  τ_i = max(τ_0, round(τ_0·(F_0/F_i)^⅓));  never above `tau_max`

    where F_i is the newest round's mean loss. Without `smooth` the period doubles at once after any decrease,
    however small, and falls back when a noisy round is worse than the first: `smooth` does neither.

    Haddadpour et al., NeurIPS 2019, in the form of the authors' poster [F]; `smooth` is the project's own. The
    period grows where AdaComm's shrinks: each follows from its own theory.

    Raises InputError unless 1 ≤ tau0 ≤ tau_max, and from `next` if the first loss is not positive and finite.
    Later rounds without a positive, finite loss are ignored.

    >>> schedule = LupaLoss(tau0=10)
    >>> seen = Observation(1, 2.7, 64, 64, 2, 0, elapsed_s=1, lr_decay=1, workers=2)
    >>> state = schedule.next(schedule.init(), seen)
    >>> [schedule.next(state, replace(seen, loss=loss)).period.tau for loss in (2.7, 2.6, 0.1)]
    [10, 20, 30]
    """

    tau0: int = 4  # first and shortest period
    tau_max: int = 64  # longest period
    smooth: bool = False  # let the period follow the ratio without the ceiling

    def __post_init__(self) -> None:
        validation.whole_number("tau0", self.tau0, at_least=1)
        validation.whole_number("tau_max", self.tau_max, at_least=self.tau0)

    def init(self) -> LupaLossState:
        return LupaLossState(Period(self.tau0, why=f"tau0 is {self.tau0}"))

    def next(self, state: LupaLossState, seen: Observation) -> LupaLossState:
        if seen.round_samples == 0:
            return state
        usable = math.isfinite(seen.loss) and seen.loss > 0
        if state.first_loss == 0:
            if not usable:
                hint = "LUPA divides by later ones; use a positive loss, or FixedPeriod"
                raise InputError("loss", seen.loss, "a positive, finite mean loss in the first round", hint)
            return replace(state, first_loss=seen.loss)
        if not usable:
            return state
        tau = self._tau(state.first_loss / seen.loss)
        if tau == state.period.tau:
            return state
        why = f"the loss is {seen.loss / state.first_loss:.3g} of the first round's"
        return replace(state, period=Period(tau, why=why))

    def restore(self, plain: dict[str, Any]) -> LupaLossState:
        return from_plain(LupaLossState, plain)

    def _tau(self, ratio: float) -> int:
        root = math.cbrt(ratio)
        tau = max(self.tau0, round(self.tau0 * root)) if self.smooth else self.tau0 * math.ceil(root - 1e-9)
        return min(tau, self.tau_max)
