"""Averaging once, at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raysgd_local.algorithms.schedules.base import LONGEST, Observation, Period
from raysgd_local.serialization import from_plain


@dataclass(frozen=True)
class OnceState:
    """Nothing to remember but the period itself."""

    period: Period


@dataclass(frozen=True)
class Once:
    """Members train alone to the end; the model is the mean of theirs.

    At each epoch's end, where data are dealt anew, the mean is taken to be evaluated and written into checkpoints, but
    nobody adopts it. So a worker that dies takes all that it has trained with it, and one that joins begins with the
    newest mean.

    Zinkevich, Weimer, Smola, Li, "Parallelized Stochastic Gradient Descent", NeurIPS 2010; McDonald, Hall, Mann,
    "Distributed Training Strategies for the Structured Perceptron", NAACL 2010 [S]. For models that are not convex
    the mean of models trained apart from random weights is worthless: begin together, by a `Switch`.

    >>> Once().init().period.mode
    'apart'
    """

    def init(self) -> OnceState:
        return OnceState(Period(LONGEST, "apart", "members train alone"))

    def next(self, state: OnceState, seen: Observation) -> OnceState:  # noqa: ARG002 - a constant
        return state

    def restore(self, plain: dict[str, Any]) -> OnceState:
        return from_plain(OnceState, plain)
