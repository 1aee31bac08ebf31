"""The report's charts, as SVG that takes its colours from the page around it, so that light and dark themes work."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, StrMethodFormatter

from raysgd_local.run_files.reader import Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

RUN_COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#eab308", "#ec4899", "#06b6d4", "#84cc16")
TIME_COLOURS = {"compute": "#14b8a6", "communication": "#f59e0b", "waiting": "#f43f5e", "other": "#94a3b8"}
INK, GRID, CARD = "#010203", "#040506", "#070809"  # stand-ins, replaced by the page's own colours
MAX_POINTS = 1200  # more can't be seen, and make the page heavy
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "raysgd-local",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.formatter.limits": (-4, 6),
    "grid.color": GRID,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def colour(index: int) -> str:
    """Return the colour of the run at this index, the same in every chart."""
    return RUN_COLOURS[index % len(RUN_COLOURS)]


def literal(text: str) -> str:
    r"""Return a text of the user's so that matplotlib draws it as it is: no formulas, no characters unfit for SVG.

    >>> literal("costs $5 to $6")
    'costs \\$5 to \\$6'
    """
    return "".join(letter if letter.isprintable() else " " for letter in text).replace("$", r"\$")


def loss_over(runs: Sequence[Run], column: str, label: str) -> str:
    """Draw the training loss against a cumulative column: single rounds faint, their running mean strong."""

    def draw(axes: Axes) -> None:
        for index, run in enumerate(runs):
            rounds = thin(run.rounds)
            x, smooth = rounds[column], running_mean(rounds["loss"], rounds["total_samples"])
            if len(rounds) > 30:
                axes.plot(x, rounds["loss"], color=colour(index), alpha=0.25, linewidth=0.8)
            axes.plot(x, smooth, color=colour(index), marker=_marker(rounds))
        _log_if_wide(axes, [run.rounds["loss"] for run in runs])
        if column == "total_samples":
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set(xlabel=label, ylabel="training loss")

    return svg(draw)


def metric_over_time(runs: Sequence[Run], metric: str) -> str:
    """Draw an evaluation metric of the averaged model against training time."""

    def draw(axes: Axes) -> None:
        for index, run in enumerate(runs):
            if metric in run.evals:
                evals = run.evaluations_of(metric)
                points = evals["elapsed_s"], evals[metric]
                axes.plot(*points, color=colour(index), marker="o", markersize=3.5)
        axes.set(xlabel="training time (s)", ylabel=f"{literal(metric)}, held out")

    return svg(draw)


def tau_over_time(runs: Sequence[Run]) -> str:
    """Draw the period τ of every round against training time, on a logarithmic scale."""

    def draw(axes: Axes) -> None:
        for index, run in enumerate(runs):
            steps(axes, thin(run.rounds), "tau", colour(index))
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_ylim(bottom=0.9)
        axes.set(xlabel="training time (s)", ylabel="τ (local steps a round)")

    return svg(draw)


def workers_over_time(runs: Sequence[Run]) -> str:
    """Draw the number of workers in every round."""

    def draw(axes: Axes) -> None:
        for index, run in enumerate(runs):
            steps(axes, thin(run.rounds), "workers", colour(index))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_ylim(bottom=0)
        axes.set(xlabel="training time (s)", ylabel="workers")

    return svg(draw)


def where_time_went(runs: Sequence[Run]) -> str:
    """Draw one bar per run: the mean worker's seconds in compute, communication and waiting, stacked."""

    def draw(axes: Axes) -> None:
        for row, run in enumerate(runs):
            left, total = 0.0, sum(time_parts(run.rounds).values())
            for part, seconds in time_parts(run.rounds).items():
                axes.barh(row, seconds, left=left, height=0.6, color=TIME_COLOURS[part])
                if seconds > 0.07 * total:
                    place = (left + seconds / 2, row)
                    axes.annotate(f"{seconds / total:.0%}", place, color="#0b1220", ha="center", va="center")
                left += seconds
        axes.set_yticks(range(len(runs)), [literal(run.name) for run in runs])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(runs) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="seconds of the mean worker")

    return svg(draw, height=1.2 + 0.5 * len(runs), width=12.6)


def time_parts(rounds: pd.DataFrame) -> dict[str, float]:
    """Return the mean worker's seconds by activity; `other` is evaluation, checkpoints and forming views."""
    sums = {
        "compute": float(rounds["compute_s"].sum()),
        "communication": float(rounds["sync_s"].sum()),
        "waiting": float(rounds["wait_s"].sum()),
    }
    elapsed = float(rounds["elapsed_s"].max()) if len(rounds) else 0.0
    return {**sums, "other": max(0.0, elapsed - sum(sums.values()))}


def running_mean(values: pd.Series[float], position: pd.Series[float]) -> np.ndarray[Any, Any]:
    """Return a running mean over a window of a thirtieth of the x axis, ignoring values that are not finite.

    The way is `position`, ascending, such as samples: in rounds a window would blur a steep beginning.
    """
    x, y = position.to_numpy(float), values.to_numpy(float)
    finite = np.isfinite(y)
    reach = x[-1] / 60 if len(x) else 0.0
    first, last = np.searchsorted(x, x - reach, "left"), np.searchsorted(x, x + reach, "right")
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, y, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    count = counts[last] - counts[first]
    return np.where(count > 0, (sums[last] - sums[first]) / np.maximum(count, 1), np.nan)


def thin(rounds: pd.DataFrame) -> pd.DataFrame:
    """The rounds, or evenly spaced ones of them, with running totals: `total_samples`."""
    totals = rounds.assign(total_samples=rounds["samples"].cumsum())
    if len(totals) <= MAX_POINTS:
        return totals
    return totals.iloc[np.linspace(0, len(totals) - 1, MAX_POINTS).astype(int)]


def svg(draw: Callable[[Axes], None], width: float = 6.2, height: float = 3.3, from_zero: bool = True) -> str:
    """Return the drawing of `draw` as an `<svg>` element for use inside a page."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        if from_zero:
            axes.set_xlim(left=0)
        if not any(np.isfinite(line.get_ydata()).any() for line in axes.lines) and not axes.patches:
            axes.text(0.5, 0.5, "nothing to show yet", transform=axes.transAxes, ha="center")
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return embedded(out.getvalue())


def embedded(text: str) -> str:
    """Convert a standalone SVG file to an element: no prologue, no links, colours and typeface from the page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text))
    return text.replace(INK, "currentColor").replace(GRID, "var(--grid)").replace(CARD, "var(--card)")


def _log_if_wide(axes: Axes, series: Sequence[Any]) -> None:
    values = np.concatenate([np.asarray(one, dtype=float) for one in series])
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
        axes.grid(visible=True, which="minor", axis="y", alpha=0.3)


def steps(axes: Axes, rounds: pd.DataFrame, column: str, shade: Any, **style: Any) -> None:
    """Draw each round's value as a step from the end of the previous round (the first from 0) to its own end."""
    if len(rounds):
        values = [rounds[column].iloc[0], *rounds[column]]
        axes.step([0.0, *rounds["elapsed_s"]], values, where="pre", color=shade, **style)


def _marker(rounds: pd.DataFrame) -> str:
    return "o" if len(rounds) < 3 else ""
