"""The results of a sweep's trials, from their run directories: a table, the best trial, and its configuration."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from raysgd_local.errors import InputError
from raysgd_local.run_files import reader
from raysgd_local.run_files.reader import RESULT, Run
from raysgd_local.tuning.domains import label
from raysgd_local.tuning.objective import Objective
from raysgd_local.tuning.points import Point

if TYPE_CHECKING:
    import pandas as pd

SWEEP, TABLE, BEST, PAGE = "sweep.yaml", "trials", "best.yaml", "report.html"
SEED = "seed"
"""The key of the space that distinguishes repetitions of a choice."""

RUN = "run"
STOP = "stop"  # a file that asks the trials to end
"""The run's directory inside its trial's."""


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep, and its result."""

    name: str
    point: Point
    status: str  # `finished`, `stopped early`, `failed` or `unfinished`
    run: Run | None = None  # None if it has no readable directory
    figures: dict[str, float] = field(default_factory=dict)  # of the objective; NaN where not known
    error: str = ""  # one line


def trial_directory(sweep: Path, identity: str) -> Path:
    return sweep / f"trial_{identity}"


def is_finished(run: Path) -> bool:
    """Whether the run in this directory finished."""
    try:
        found: object = json.loads((run / RESULT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("status") == "finished"


def read_trial(directory: Path, point: Point, objective: Objective, status: str, error: str = "") -> Trial:
    """Read the trial in this directory; `status` is its status if its run did not finish."""
    try:
        run = reader.load(directory / RUN)
    except InputError:  # the run never started
        return Trial(directory.name, point, status, error=error)
    status = "finished" if is_finished(directory / RUN) else status
    return Trial(directory.name, point, status, run, objective.figures(run), error)


def ranked(trials: Sequence[Trial], objective: Objective) -> list[Trial]:
    """Return the trials that finished and have the objective's figure, the best first.

    Trials that differ only in their seed are ranked by their median, then by their own figure, so that a lucky seed
    doesn't decide.
    """
    sign = 1 if objective.mode == "min" else -1
    finished = [trial for trial in trials if trial.status == "finished"]
    measured = [trial for trial in finished if math.isfinite(trial.figures.get(objective.metric, math.nan))]
    typical = medians(trials, objective)
    return sorted(measured, key=lambda t: (sign * typical[choice_of(t)], sign * t.figures[objective.metric]))


def medians(trials: Sequence[Trial], objective: Objective) -> dict[str, float]:
    """Return the median of the objective's figure over seeds, for each choice of the other keys.

    Trials that were stopped early, or have no figure, count as the worst.
    """
    found: dict[str, list[float]] = {}
    for trial in trials:
        if trial.status in ("finished", "stopped early"):
            figure = trial.figures.get(objective.metric, math.nan) if trial.status == "finished" else math.nan
            found.setdefault(choice_of(trial), []).append(objective.worst if math.isnan(figure) else figure)
    return {choice: statistics.median(figures) for choice, figures in found.items()}


def choice_of(trial: Trial) -> str:
    """Return a key for the trial's choice without its seed. A trial whose point has no seed repeats no other."""
    if SEED not in trial.point:
        return trial.name
    return repr({key: label(value) for key, value in seedless(trial.point).items()})


def seedless(point: Point) -> Point:
    """Return the point without its seed."""
    return {key: value for key, value in point.items() if key != SEED}


def table(trials: Sequence[Trial], objective: Objective) -> pd.DataFrame:
    """Return a table with a row for each trial, the best first: status, figures, point, and costs."""
    import pandas as pd

    best = ranked(trials, objective)
    order = [*best, *(trial for trial in trials if trial not in best)]
    found = pd.DataFrame([_row(trial, objective) for trial in order])
    if any(SEED in trial.point for trial in trials):
        typical = medians(trials, objective)
        found.insert(3, f"{objective.metric}_median", [typical.get(choice_of(trial), math.nan) for trial in order])
    mixed = [name for name in found.columns if found[name].map(type).nunique() > 1 and found[name].dtype == object]
    return found.astype(dict.fromkeys(mixed, "string"))


def _row(trial: Trial, objective: Objective) -> dict[str, object]:
    rest = {name: value for name, value in trial.figures.items() if name != objective.metric}
    row: dict[str, object] = {"trial": trial.name, "status": trial.status}
    row[objective.metric] = trial.figures.get(objective.metric, math.nan)
    row |= {key: label(value) for key, value in trial.point.items()}
    row |= rest
    if trial.run is not None:
        rounds = trial.run.rounds
        row["method"] = trial.run.result.get("method")
        row |= {"elapsed_s": rounds["elapsed_s"].max(), "rounds": len(rounds), "tau_mean": rounds["tau"].mean()}
        row |= {name: rounds[name].sum() for name in ("steps", "samples", "wire_bytes")}
    return {**row, "error": trial.error}
