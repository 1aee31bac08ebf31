"""Follow one schedule, then another: post-local SGD and its relatives."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.schedules.base import Observation, Period, Schedule
from raysgd_local.algorithms.schedules.every_step import EveryStep
from raysgd_local.algorithms.schedules.fixed import FixedPeriod
from raysgd_local.algorithms.schedules.modes import modes
from raysgd_local.algorithms.schedules.stability import Stability, StabilityState
from raysgd_local.errors import InputError
from raysgd_local.serialization import from_plain


class Condition(Protocol):
    """A condition for the switch that depends on a single round."""

    def reached(self, seen: Observation) -> str:
        """Return the reason for a switch after this round, in words; empty if the condition is not met."""
        ...


@dataclass(frozen=True)
class AtEpoch:
    """Switch after the first round seen in epoch `epoch` (counted from 0) or later."""

    epoch: int

    def __post_init__(self) -> None:
        validation.whole_number("epoch", self.epoch, at_least=1)

    def reached(self, seen: Observation) -> str:
        return f"epoch {seen.epoch} has begun" if seen.epoch >= self.epoch else ""


@dataclass(frozen=True)
class AtFirstDecay:
    """Switch after the first round with a decayed learning rate (warm-up and scaling don't count as decay)."""

    def reached(self, seen: Observation) -> str:
        return f"the learning rate decayed to {seen.lr_decay:.3g}" if seen.lr_decay < 1 else ""


@dataclass(frozen=True)
class AtLoss:
    """Switch after the first round whose mean training loss is at most `loss`."""

    loss: float

    def __post_init__(self) -> None:
        validation.number("loss", self.loss)

    def reached(self, seen: Observation) -> str:
        below = seen.round_samples > 0 and seen.loss <= self.loss
        return f"the loss came down to {seen.loss:.3g}" if below else ""


Trigger = Condition | Stability
"""When to switch."""


@dataclass(frozen=True)
class SwitchState:
    """The states of both schedules."""

    period: Period  # of the schedule in force
    first: Any  # state of the first schedule
    then: Any = None  # state of the second schedule; None before the switch
    switched_s: float = 0.0  # training time of the switch; valid once `then` is set
    watch: StabilityState | None = None  # of the stability test, before a switch by `Stability`


@dataclass(frozen=True)
class Switch:
    """Follow the schedule `first` until the switch, then `then`, whose time and state begin at the switch.

    With the defaults this is post-local SGD: Lin, Stich, Patel, Jaggi, "Don't Use Large Mini-Batches, Use Local
    SGD", ICLR 2020, section 3: synchronous until the first learning-rate decay, then a period of 16.

    Raises InputError unless `first` and `then` are schedules and `when` is a trigger. With the stability test it also
    raises unless `first` averages gradients, and `then` has a first period of at most `when.steps`.

    >>> schedule = Switch(EveryStep(), FixedPeriod(4), when=AtEpoch(1))
    >>> seen = Observation(1, 2.0, 64, 64, 2, epoch=1, elapsed_s=1, lr_decay=1, workers=2)
    >>> schedule.next(schedule.init(), seen).period
    Period(tau=4, mode='parameters', why='epoch 1 has begun: fixed period of 4', delta=None)
    """

    first: Schedule = field(default_factory=EveryStep)
    then: Schedule = field(default_factory=FixedPeriod)
    when: Trigger = field(default_factory=AtFirstDecay)

    def __post_init__(self) -> None:
        validation.schedule("first", self.first)
        validation.schedule("then", self.then)
        if isinstance(self.when, Stability):
            self._check_probes(self.when)
            return
        allowed = "AtEpoch(epoch), AtFirstDecay(), AtLoss(loss) or Stability()"
        validation.has_methods("when", self.when, ("reached",), allowed)

    def _check_probes(self, when: Stability) -> None:
        """Check that a probe compares the training before the switch (synchronous) with that after it (local)."""
        if modes(self.first) != {"gradients"}:
            hint = "the stability test compares local steps with synchronous ones"
            raise InputError("first", type(self.first).__name__, "every-step before a stability test", hint)
        if modes(self.then) & {"gradients", "apart"}:
            hint = "the stability test tries local steps and one averaging: every period has to be one of these"
            raise InputError("then", type(self.then).__name__, "a schedule with a period of local steps", hint)
        if when.steps is not None and when.steps < self._tau:
            hint = "fewer local steps than come after the switch would drift apart less than those"
            raise InputError("when.steps", when.steps, f"at least {self._tau}, the period after the switch", hint)

    @property
    def _tau(self) -> int:
        """The first period after the switch."""
        period: Period = self.then.init().period
        return period.tau

    def init(self) -> SwitchState:
        first = self.first.init()
        return SwitchState(
            first.period, first, watch=StabilityState() if isinstance(self.when, Stability) else None
        )

    def next(self, state: SwitchState, seen: Observation) -> SwitchState:
        if state.then is not None:
            since = replace(seen, elapsed_s=seen.elapsed_s - state.switched_s)
            then = self.then.next(state.then, since)
            return replace(state, then=then, period=_newest(state.period, state.then.period, then.period))
        first = self.first.next(state.first, seen)
        if isinstance(self.when, Stability):
            watch = self.when.watch(state.watch or StabilityState(), seen, self._tau)
            period, why = replace(first.period, probe=watch.probe, why=watch.found or first.period.why), watch.why
        else:
            watch, period, why = None, first.period, self.when.reached(seen)
        if not why:
            return SwitchState(period, first, watch=watch)
        then = self.then.init()
        period = replace(then.period, why=f"{why}: {then.period.why}")
        return SwitchState(period, first, then, seen.elapsed_s)

    def restore(self, plain: dict[str, Any]) -> SwitchState:
        return SwitchState(
            period=from_plain(Period, plain["period"]),
            first=self.first.restore(plain["first"]),
            then=None if plain["then"] is None else self.then.restore(plain["then"]),
            switched_s=float(plain["switched_s"]),
            watch=None if plain.get("watch") is None else from_plain(StabilityState, plain["watch"]),
        )


def _newest(shown: Period, before: Period, after: Period) -> Period:
    """Keep the shown period, whose reason may be the switch, until the second schedule changes the period."""
    return shown if after == before else after
