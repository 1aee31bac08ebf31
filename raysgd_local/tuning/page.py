"""Write a sweep's self-contained HTML page, with the templates of the report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from raysgd_local.report import Chart, rendered, save
from raysgd_local.tuning import charts
from raysgd_local.tuning.domains import Choice, label, told
from raysgd_local.tuning.results import BEST, SWEEP, Trial, ranked, table
from raysgd_local.tuning.sweep import Sweep

_MOST_ROWS = 100


def write_page(place: Path, sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Write the page of these trials. Raises `InputError` if it can't be written."""
    save(place, render(place.parent.name, sweep, trials))


def render(name: str, sweep: Sweep, trials: Sequence[Trial]) -> str:
    """Return the page as HTML."""
    objective = sweep.objective
    best = next(iter(ranked(trials, objective)), None)
    rows = table(trials, objective).replace(_names(sweep))
    files = {} if best is None else {BEST: sweep.config(best.point).to_yaml()}
    return rendered(
        "sweep.html.j2",
        title=name,
        subtitle=_subtitle(sweep, trials),
        headline=_headline(best),
        charts=_charts(sweep, trials),
        columns=[str(column).removeprefix("algorithm.") for column in rows.columns],
        rows=[[_cell(value) for value in row] for row in rows.head(_MOST_ROWS).itertuples(index=False)],
        count=len(rows),
        files={**files, SWEEP: sweep.to_yaml()},
    )


def _subtitle(sweep: Sweep, trials: Sequence[Trial]) -> str:
    counts = Counter(trial.status for trial in trials)
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    objective = sweep.objective
    at = "" if objective.budget_s is None else f", of at most {objective.budget_s:g} s of training each"
    target = objective.target
    until = "" if target is None else f"; the target is {target.metric} {target.value:g}"
    direction = "least" if objective.mode == "min" else "most"
    return f"{len(trials)} trials{at}: {told}. The best has the {direction} {objective.metric}{until}."


def _headline(best: Trial | None) -> list[tuple[str, str]]:
    if best is None:
        return []
    figures = [(name, _cell(value)) for name, value in best.figures.items()]
    return [("trial", best.name), *figures, *((key, _cell(told(value))) for key, value in best.point.items())]


def _charts(sweep: Sweep, trials: Sequence[Trial]) -> list[Chart]:
    objective = sweep.objective
    return [
        Chart("Error against runtime", charts.frontier(trials, objective), legend=charts.FRONTIER_LEGEND),
        Chart("Averaging period τ", charts.taus(trials, objective), legend=charts.LEGEND),
        Chart("Where trials lie", charts.parallel(trials, objective, sweep.space), True, charts.LEGEND),
    ]


def _names(sweep: Sweep) -> dict[str, str]:
    """Map the labels of sections in the space to their readable form."""
    values = [value for domain in sweep.space.values() if isinstance(domain, Choice) for value in domain.values]
    return {label(value): told(value) for value in values if isinstance(value, dict)}


def _cell(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
