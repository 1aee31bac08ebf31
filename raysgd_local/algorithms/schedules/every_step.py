"""Fully synchronous SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raysgd_local.algorithms.schedules.base import Observation, Period
from raysgd_local.serialization import from_plain


@dataclass(frozen=True)
class EveryStepState:
    """The constant period."""

    period: Period


@dataclass(frozen=True)
class EveryStep:
    """Average the gradients before every optimizer step: equals training on one large batch, with any optimizer.

    This is the baseline against which other schedules are compared.

    >>> EveryStep().init().period.mode
    'gradients'
    """

    def init(self) -> EveryStepState:
        return EveryStepState(Period(1, "gradients", "gradients are averaged before every step"))

    def next(self, state: EveryStepState, seen: Observation) -> EveryStepState:  # noqa: ARG002 - a constant
        return state

    def restore(self, plain: dict[str, Any]) -> EveryStepState:
        return from_plain(EveryStepState, plain)
