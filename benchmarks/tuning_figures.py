"""The figures of `tuning.py`, from what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from lib.figures import STYLE
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raysgd_local.report.charts import RUN_COLOURS
from raysgd_local.tuning.domains import told

INK = "#1c2430"
LR = "task.optimizer.lr"
WHEN, TAU = "algorithm.schedule.when", "algorithm.schedule.then.tau"


def ranking(found: Mapping[str, Any]) -> Figure:
    """Each point's simulated loss against its real one; numbers are the table's rows."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 5.0), layout="constrained", facecolor="white")
        axes: Axes = figure.subplots()
        points = found["points"]
        rates = sorted({one["point"][LR] for one in points})
        for number, one in enumerate(points, start=1):
            colour = RUN_COLOURS[rates.index(one["point"][LR])]
            axes.plot(one["real"], one["simulated"], "o", color=colour, markersize=5)
            place = one["real"], one["simulated"]
            axes.annotate(str(number), place, (5, 0), textcoords="offset points", va="center", fontsize=8)
        span = [min(one["real"] for one in points), max(one["real"] for one in points)]
        axes.plot(span, span, color="#94a3b8", linestyle="--", zorder=0)
        for colour, rate in zip(RUN_COLOURS, rates, strict=False):
            axes.plot([], [], "o", color=colour, label=f"learning rate {rate:g}")
        axes.set(xlabel="loss at budget, real", ylabel="loss at budget, simulated", xscale="log", yscale="log")
        axes.legend(frameon=False)
        return figure


def switch(found: Mapping[str, Any]) -> Figure:
    """The sweep's times to the target by switch point, and those of the arms that were run again."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.8), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2, sharey=True)
        _swept(left, found["sweep"])
        _again(right, found["again"], found["medians"])
        return figure


def _swept(axes: Axes, trials: Sequence[Mapping[str, Any]]) -> None:
    switches = list(dict.fromkeys(_when(one) for one in trials))
    for colour, tau in zip(RUN_COLOURS, sorted({one["point"][TAU] for one in trials}), strict=False):
        own = [one for one in trials if one["point"][TAU] == tau]
        places = [switches.index(_when(one)) for one in own]
        axes.plot(places, [one["time_to_target_s"] for one in own], "o", color=colour, label=f"H = {tau}")
    axes.set_xticks(range(len(switches)), switches)
    axes.set(
        ylabel="training time to the target (s)",
        title="the sweep, a run each seed",
        xlim=(-0.5, len(switches) - 0.5),
    )
    axes.legend(frameon=False)


def _when(trial: Mapping[str, Any]) -> str:
    return str(told(trial["point"][WHEN])).removeprefix("epoch, ").replace("-", " ")


def _again(axes: Axes, times: Mapping[str, Sequence[float]], medians: Mapping[str, float]) -> None:
    for place, (name, found) in enumerate(times.items()):
        finite = [one for one in found if np.isfinite(one)]
        axes.plot(np.full(len(finite), place), finite, "o", color=RUN_COLOURS[place], alpha=0.7)
        axes.hlines(medians[name], place - 0.2, place + 0.2, color=INK, linewidth=2)
    axes.set_xticks(range(len(times)), list(times))
    axes.set(
        title=f"again, {len(next(iter(times.values())))} seeds, and the median", xlim=(-0.5, len(times) - 0.5)
    )
    axes.set_ylim(bottom=0)
