"""Dynamic averaging: only when members have moved apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.schedules.base import Observation, Period
from raysgd_local.serialization import from_plain


@dataclass(frozen=True)
class DynamicState:
    """`passed` checks in a row brought no averaging."""

    period: Period
    passed: int = 0


@dataclass(frozen=True)
class Dynamic:
    """Every `every` steps members look whether one is further from the anchor than δ: ‖x_i − anchor‖² > delta.

    If one is, all average; otherwise all go on from where they are. At every `most`-th look they average in any case.
    What is looked at is a bit in the control part, so a look costs next to nothing on the network. δ = 0 is a period of
    `every`; a δ that is never reached `every`·`most`.

    Kamp, Adilova, Sicking, Hüger, Schlicht, Wirtz, Wrobel, "Efficient Decentralized Deep Learning by Dynamic Model
    Averaging", ECML PKDD 2018 [F]; there partial averagings come first, and no limit `most`, which is ours.

    Raises InputError unless every ≥ 1, delta ≥ 0 and most ≥ 1.

    >>> Dynamic(every=4, delta=0.5).init().period.delta
    0.5
    """

    every: int = 4
    delta: float = 1.0
    most: int = 16
    later_modes = ("partial",)

    def __post_init__(self) -> None:
        validation.whole_number("every", self.every, at_least=1)
        validation.whole_number("most", self.most, at_least=1)
        if self.delta != 0:
            validation.number("delta", self.delta, above=0)

    def init(self) -> DynamicState:
        return self._after(0)

    def next(self, state: DynamicState, seen: Observation) -> DynamicState:
        return self._after(0 if seen.whole else state.passed + 1)

    def restore(self, plain: dict[str, Any]) -> DynamicState:
        return from_plain(DynamicState, plain)

    def _after(self, passed: int) -> DynamicState:
        last = passed + 1 >= self.most
        why = f"a look every {self.every} steps"
        return DynamicState(Period(self.every, "parameters" if last else "partial", why, self.delta), passed)
