"""Average once, at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raysgd_local.algorithms.schedules.base import LONGEST, Observation, Period
from raysgd_local.serialization import from_plain


@dataclass(frozen=True)
class OnceState:
    """The constant period."""

    period: Period


@dataclass(frozen=True)
class Once:
    """Train members alone to the end; the model is the mean of theirs (one-shot averaging).

    At the end of each epoch the mean is computed, for evaluation and checkpoints, but members don't adopt it. So all
    training of a worker that dies is lost, and a worker that joins begins with the newest mean.

    Zinkevich, Weimer, Smola, Li, "Parallelized Stochastic Gradient Descent", NeurIPS 2010; McDonald, Hall, Mann,
    "Distributed Training Strategies for the Structured Perceptron", NAACL 2010 [S]. The mean of non-convex models
    that were trained apart from random weights is worthless: train them together first, with a `Switch`.

    >>> Once().init().period.mode
    'apart'
    """

    def init(self) -> OnceState:
        return OnceState(Period(LONGEST, "apart", "members train alone"))

    def next(self, state: OnceState, seen: Observation) -> OnceState:  # noqa: ARG002 - a constant
        return state

    def restore(self, plain: dict[str, Any]) -> OnceState:
        return from_plain(OnceState, plain)
