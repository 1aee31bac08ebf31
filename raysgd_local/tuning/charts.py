"""A sweep's charts: progress of the trials, their points, and their periods τ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import StrMethodFormatter

from raysgd_local.report.charts import CARD, INK, literal, running_mean, steps, svg, thin
from raysgd_local.tuning.domains import Choice, Domain, label, told
from raysgd_local.tuning.objective import TIME_TO_TARGET, TRAIN_LOSS, Objective
from raysgd_local.tuning.results import Trial, ranked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray[Any, Any]

BEST, NEXT, WORST = "#f97316", "#2563eb", "#94a3b8"
LEGEND = {"the best trial": BEST, "those next to it": NEXT, "the worst, stopped early or failed": WORST}
FRONTIER_LEGEND = {"the best that any trial had by then": "currentColor", **LEGEND}
SHADES = LinearSegmentedColormap.from_list(
    "ranks", [NEXT, WORST]
)  # of all trials but the best, which has its own colour
MOST_LINES = 80  # more would be indistinguishable
_LONGEST = 44  # characters beside an axis


def frontier(trials: Sequence[Trial], objective: Objective) -> str:
    """Draw each trial's progress over training time, and the best value of any trial at each time."""
    metric, mode = objective.progress

    def draw(axes: Axes) -> None:
        curves = [(*curve(trial, metric), shade) for trial, shade in shades(trials, objective)]
        for x, y, shade in reversed(curves):
            axes.plot(x, y, color=shade, linewidth=1.1, alpha=0.8)
        x, y = envelope([(x, y) for x, y, _ in curves], mode)
        axes.step(x, y, where="post", color=INK, linewidth=2.2)
        if objective.metric == TIME_TO_TARGET and objective.target is not None:
            axes.axhline(objective.target.value, color=INK, linewidth=0.8, linestyle=":")
        values = np.concatenate([y[np.isfinite(y)] for _, y, _ in curves] or [np.array([])])
        if mode == "min" and values.size and values.min() > 0 and values.max() > 20 * values.min():
            axes.set_yscale("log")
        axes.set(
            xlabel="training time (s)",
            ylabel="training loss" if metric == TRAIN_LOSS else f"{literal(metric)}, held out",
        )

    return svg(draw)


def curve(trial: Trial, metric: str) -> tuple[Array, Array]:
    """Return training times and values of the metric that shows a trial's progress."""
    if trial.run is None:
        return np.array([]), np.array([])
    if metric == TRAIN_LOSS:
        rounds = thin(trial.run.rounds)
        return rounds["elapsed_s"].to_numpy(float), running_mean(rounds["loss"], rounds["total_samples"])
    if metric not in trial.run.evals:
        return np.array([]), np.array([])
    return trial.run.evals["elapsed_s"].to_numpy(float), trial.run.evals[metric].to_numpy(float)


def envelope(curves: Sequence[tuple[Array, Array]], mode: str) -> tuple[Array, Array]:
    """Return the best value that any curve reached by each time.

    >>> x, y = envelope([(np.array([1.0, 4.0]), np.array([9.0, 2.0])), (np.array([3.0]), np.array([5.0]))], "min")
    >>> x.tolist(), y.tolist()
    ([1.0, 3.0, 4.0], [9.0, 5.0, 2.0])
    """
    x = np.concatenate([x for x, _ in curves] or [np.array([])])
    y = np.concatenate([y for _, y in curves] or [np.array([])])
    known = np.isfinite(y)
    x, y = x[known], y[known]
    order = np.argsort(x, kind="stable")
    best = np.minimum.accumulate(y[order]) if mode == "min" else np.maximum.accumulate(y[order])
    return x[order], best


def parallel(trials: Sequence[Trial], objective: Objective, space: Mapping[str, Domain]) -> str:
    """Draw parallel coordinates: an axis for each key, the objective's figure last, and a line for each trial."""
    names = [*space, objective.metric]

    def draw(axes: Axes) -> None:
        for trial, shade in reversed(shades(trials, objective)):
            heights = [height(domain, trial.point[key]) for key, domain in space.items()]
            heights.append(_figure_height(trial, trials, objective))
            axes.plot(range(len(names)), heights, color=shade, alpha=0.8, linewidth=1.3)
        for at, domain in enumerate(space.values()):
            _scale(axes, at, domain)
        _figure_scale(axes, len(space), trials, objective)
        axes.set_xticks(range(len(names)), [literal(name.removeprefix("algorithm.")) for name in names])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.set_xlim(-0.15, len(names) - 0.6)
        axes.set_ylim(-0.14, 1.1)

    return svg(draw, width=12.6, height=3.9, from_zero=False)


def height(domain: Domain, value: Any) -> float:
    """Return a value's place on its axis, from 0 to 1: to scale in a span, evenly spaced among choices."""
    if isinstance(domain, Choice):
        values = _ordered(domain)
        place = values.index(label(value)) if label(value) in values else 0
        return place / (len(values) - 1) if len(values) > 1 else 0.5
    low, high = domain.corners
    if domain.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float((value - low) / (high - low)) if high > low else 0.5


def taus(trials: Sequence[Trial], objective: Objective) -> str:
    """Draw the period τ of each trial over its training time."""

    def draw(axes: Axes) -> None:
        for trial, shade in reversed(shades(trials, objective)):
            if trial.run is not None:
                steps(axes, thin(trial.run.rounds), "tau", shade, linewidth=1.3, alpha=0.85)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_ylim(bottom=0.9)
        axes.set(xlabel="training time (s)", ylabel="τ (local steps a round)")

    return svg(draw)


def shades(trials: Sequence[Trial], objective: Objective) -> list[tuple[Trial, Any]]:
    """Choose the trials to draw, the best first, each with its colour."""
    best = ranked(trials, objective)
    rest = [trial for trial in trials if trial not in best]
    last = max(1, len(best) - 2)
    coloured = [(trial, SHADES((place - 1) / last) if place else BEST) for place, trial in enumerate(best)]
    return [*coloured, *((trial, WORST) for trial in rest)][:MOST_LINES]


def _ordered(domain: Choice) -> list[Any]:
    values = [label(value) for value in domain.values]
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return sorted(values) if plain else values


def _scale(axes: Axes, at: int, domain: Domain) -> None:
    axes.axvline(at, color=INK, linewidth=0.8, alpha=0.5)
    marks = domain.values if isinstance(domain, Choice) else domain.corners
    for mark in marks:
        _mark(axes, at, height(domain, mark), f"{mark:.4g}" if isinstance(mark, float) else str(told(mark)))


def _mark(axes: Axes, at: int, place: float, text: str) -> None:
    """Draw a label beside an axis, with a background that hides the lines behind it."""
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    ground = {"facecolor": CARD, "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
    axes.annotate(
        literal(text), (at, place), (5, 0), textcoords="offset points", va="center", fontsize=9, bbox=ground
    )


def _span(trials: Sequence[Trial], objective: Objective) -> tuple[float, float] | None:
    figures = [trial.figures[objective.metric] for trial in ranked(trials, objective)]
    return (min(figures), max(figures)) if figures else None


def _figure_height(trial: Trial, trials: Sequence[Trial], objective: Objective) -> float:
    """Return the drawing order: the best on top, trials without a figure at the bottom."""
    span = _span(trials, objective)
    figure = trial.figures.get(objective.metric, math.nan)
    if span is None or trial.status != "finished" or not math.isfinite(figure):
        return -0.1
    share = (figure - span[0]) / (span[1] - span[0]) if span[1] > span[0] else 0.5
    return 1 - share if objective.mode == "min" else share


def _figure_scale(axes: Axes, at: int, trials: Sequence[Trial], objective: Objective) -> None:
    axes.axvline(at, color=INK, linewidth=0.8, alpha=0.5)
    span = _span(trials, objective)
    marks = [] if span is None else [(span[0], 0.0), (span[1], 1.0)]
    for value, share in marks:
        place = 1 - share if objective.mode == "min" else share
        _mark(axes, at, place, f"{value:.4g}")
    if len(ranked(trials, objective)) < len(trials):
        _mark(axes, at, -0.1, "none")
