"""Dynamic averaging: average only when members have moved apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.schedules.base import Observation, Period
from raysgd_local.serialization import from_plain


@dataclass(frozen=True)
class DynamicState:
    """The period, and the checks since the last averaging."""

    period: Period
    passed: int = 0  # consecutive checks without an averaging


@dataclass(frozen=True)
class Dynamic:
    """Check every `every` steps whether any member is far from the anchor: ‖x_i − anchor‖² > delta.

    If one is, all average; otherwise all go on from their own parameters. A check sends only the control part of the
    vector, in which each member's answer is one bit, so it costs next to nothing on the network. With δ = 0 this is
    a fixed period of `every`; with a δ that is never reached, of `every`·`most`.

    Kamp, Adilova, Sicking, Hüger, Schlicht, Wirtz, Wrobel, "Efficient Decentralized Deep Learning by Dynamic Model
    Averaging", ECML PKDD 2018 [F]. The paper tries partial averagings first, and has no limit `most`.

    Raises InputError unless every ≥ 1, delta ≥ 0 and most ≥ 1.

    >>> Dynamic(every=4, delta=0.5).init().period.delta
    0.5
    """

    every: int = 4  # local steps between checks
    delta: float = 1.0  # δ, a squared distance over all parameters
    most: int = 16  # average at every `most`-th check in any case
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
