"""Hierarchical local SGD: two periods, one inside blocks and one across them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.schedules.base import Observation, Period, Schedule
from raysgd_local.algorithms.schedules.fixed import FixedPeriod
from raysgd_local.algorithms.schedules.modes import delays, modes
from raysgd_local.errors import InputError
from raysgd_local.serialization import from_plain


@dataclass(frozen=True)
class HierarchicalState:
    """The states of both schedules, and sums since the last global averaging."""

    period: Period
    inside: Any  # state of the schedule inside blocks
    across: Any  # state of the schedule across blocks
    done: int = 0  # block averagings since the last global one
    loss_sum: float = 0.0  # loss since then, summed over samples
    samples: int = 0  # samples since then


@dataclass(frozen=True)
class Hierarchical:
    """Average inside blocks after H local steps, and over all blocks at every Hᵇ-th of these averagings.

    With blocks of one worker this is local SGD with a period of H·Hᵇ; with a single block, or Hᵇ = 1, with a period
    of H. The averaging `Blocks` forms the blocks. `across` observes the mean loss since the previous global averaging,
    so AdaComm can drive it. Block averagings are provisional: if all workers of a block die, its work since the last
    global averaging is lost. After any death a global averaging comes first.

    Lin, Stich, Patel, Jaggi, "Don't Use Large Mini-Batches, Use Local SGD", ICLR 2020, section 5 [S].

    Raises InputError unless both are schedules that average parameters without delay. To delay the global averagings
    use `Delayed(Hierarchical())`.

    >>> schedule = Hierarchical(FixedPeriod(4), FixedPeriod(2))
    >>> schedule.init().period
    Period(tau=4, mode='partial', why='fixed period of 4, every 2nd averaging over all', delta=None)
    """

    inside: Schedule = field(default_factory=lambda: FixedPeriod(8))  # its τ is H; it sees every round
    across: Schedule = field(default_factory=lambda: FixedPeriod(4))  # its τ is Hᵇ; it sees global rounds only
    later_modes = ("partial",)

    def __post_init__(self) -> None:
        for name in ("inside", "across"):
            schedule = getattr(self, name)
            validation.schedule(name, schedule)
            if modes(schedule) != {"parameters"} or delays(schedule):
                allowed = "a schedule that averages parameters of all at once, such as fixed or adacomm"
                raise InputError(name, type(schedule).__name__, allowed)

    def init(self) -> HierarchicalState:
        inside, across = self.inside.init(), self.across.init()
        return HierarchicalState(_period(inside.period, across.period, 0), inside, across)

    def next(self, state: HierarchicalState, seen: Observation) -> HierarchicalState:
        inside = self.inside.next(state.inside, seen)
        across, done = state.across, state.done + 1
        samples = state.samples + seen.round_samples
        loss_sum = state.loss_sum + (seen.loss * seen.round_samples if seen.round_samples else 0.0)
        if seen.whole:
            loss = loss_sum / samples if samples else seen.loss
            across, done = self.across.next(across, replace(seen, loss=loss, round_samples=samples)), 0
            loss_sum, samples = 0.0, 0
        period = _period(inside.period, across.period, done)
        return HierarchicalState(period, inside, across, done, loss_sum, samples)

    def restore(self, plain: dict[str, Any]) -> HierarchicalState:
        return HierarchicalState(
            period=from_plain(Period, plain["period"]),
            inside=self.inside.restore(plain["inside"]),
            across=self.across.restore(plain["across"]),
            done=int(plain["done"]),
            loss_sum=float(plain["loss_sum"]),
            samples=int(plain["samples"]),
        )


def _period(inside: Period, across: Period, done: int) -> Period:
    """The period after `done` block rounds."""
    why = f"{inside.why}, every {across.tau}{_ending(across.tau)} averaging over all"
    return Period(inside.tau, "parameters" if done + 1 >= across.tau else "partial", why)


def _ending(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
