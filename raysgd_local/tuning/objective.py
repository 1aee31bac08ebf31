"""The objective by which trials are compared: figures at equal training time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysgd_local.config import Target
from raysgd_local.control.replicated.endings import is_error

if TYPE_CHECKING:
    import pandas as pd

    from raysgd_local.run_files.reader import Run

TIME_TO_TARGET = "time_to_target_s"
LOSS_AT_BUDGET = "loss_at_budget"
TRAIN_LOSS = "train_loss"
OWN = (TIME_TO_TARGET, LOSS_AT_BUDGET, TRAIN_LOSS)

_LAST_PART = 0.1  # the loss at budget is the mean over this last share of the time: a single round's is too noisy


@dataclass(frozen=True)
class Objective:
    """The figure by which trials are compared."""

    metric: str
    mode: str  # `min` if less is better, else `max`
    target: Target | None = None  # of `time_to_target_s`
    budget_s: float | None = None  # training time at which `loss_at_budget` is measured

    @property
    def progress(self) -> tuple[str, str]:
        """The metric, with its mode, by which unfinished trials are compared at equal training time."""
        if self.metric == TIME_TO_TARGET and self.target is not None:
            return self.target.metric, "min" if is_error(self.target.metric) else "max"
        return (TRAIN_LOSS, "min") if self.metric in OWN else (self.metric, self.mode)

    def figures(self, run: Run) -> dict[str, float]:
        """Compute all figures of a trial's run from its tables; NaN for those not known yet."""
        figures = {name: _last(run.evals, name) for name in run.metrics}
        if self.target is not None:
            figures[TIME_TO_TARGET] = time_to_target(run.evals, self.target)
        figures[LOSS_AT_BUDGET] = loss_at(run.rounds, self.budget_s)
        figures[TRAIN_LOSS] = _last(run.rounds, "loss")
        return figures

    def better(self, one: float, other: float) -> bool:
        return one < other if self.mode == "min" else one > other

    @property
    def worst(self) -> float:
        return math.inf if self.mode == "min" else -math.inf


def time_to_target(evals: pd.DataFrame, target: Target) -> float:
    """Return the training time of the first evaluation that reached the target; infinite if none did."""
    if target.metric not in evals:
        return math.inf
    good = evals[[reached(target, float(value)) for value in evals[target.metric]]]
    return float(good["elapsed_s"].iloc[0]) if len(good) else math.inf


def reached(target: Target, value: float) -> bool:
    """Whether an evaluation's value reached the target."""
    return value <= target.value if is_error(target.metric) else value >= target.value


def loss_at(rounds: pd.DataFrame, budget_s: float | None) -> float:
    """Return the mean training loss over the last tenth of the time up to the budget, or up to the run's end."""
    within = rounds if budget_s is None else rounds[rounds["elapsed_s"] <= budget_s]
    within = within[within["loss"].notna()]
    if not len(within):
        return math.nan
    end_s = float(within["elapsed_s"].iloc[-1])
    late = within[within["elapsed_s"] >= end_s * (1 - _LAST_PART)]
    return float((late["loss"] * late["samples"]).sum() / late["samples"].sum())


def _last(table: pd.DataFrame, column: str) -> float:
    known = table[column].dropna()
    return float(known.iloc[-1]) if len(known) else math.nan
