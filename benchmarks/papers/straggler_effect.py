"""Local steps average stragglers out: Wang & Joshi, "Adaptive Communication Strategies to Achieve the Best
Error-Runtime Trade-off in Local-Update SGD", MLSys 2019, section 3.

    python benchmarks/papers/straggler_effect.py      # a minute; writes straggler_effect.svg beside this file

Step times are exponential of mean 1, an averaging takes as long as a step. The line is the theory: a step takes
E[max over m workers of the mean of τ times] + D/τ; the dots are the simulator's, which runs the real controller and
member over drawn times. Grey, for comparison, steps of the same mean that all take equally long.

What agrees: with 2, 8 and 64 workers and τ from 1 to 64 the simulator is within 0.5 % of the theory, and the paper's
claim holds that local steps save waiting as well as communication (8 workers without delay: 2.72 at τ = 1, 1.38 at 16).
What the paper leaves out: the gain hangs on the tail; going from τ = 1 to 16 leaves 23 % of the waiting where times are
exponential, but 35 % where they are Pareto with shape 2. And it hangs on independence: a worker that is always slower
is waited for as long at any τ.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from lib.figures import STYLE, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import quad
from scipy.special import gammainc

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.replicated.program import Program
from raysgd_local.report.charts import RUN_COLOURS
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.cluster.step_times import Exponential, Pareto, StepTimes
from raysgd_local.simulation.engine.loop import LoopPlan
from raysgd_local.simulation.timing.lockstep import simulate_timing
from raysgd_local.simulation.timing.plan import TimingPlan

PERIODS = (1, 2, 4, 8, 16, 32, 64)
WORKERS = (2, 8, 64)
DELAY = 1.0
MOST_STEPS, MOST_ROUNDS = 64_000, 8_000
HERE = Path(__file__).parent


def expected_max(workers: int, tau: int) -> float:
    """E[max] of `workers` means of `tau` exponential times of mean 1: the mean is Gamma(τ, 1/τ)."""
    return float(quad(lambda t: 1 - gammainc(tau, tau * t) ** workers, 0, 40, limit=200)[0])


def simulated(steps: StepTimes, workers: int, tau: int, delay: float = DELAY) -> float:
    """Seconds a step, over some thousand rounds."""
    count = min(MOST_STEPS, MOST_ROUNDS * tau)
    cluster = ClusterModel(steps, latency_ms=1000 * delay / 2 / (workers - 1))
    loop = LoopPlan(1, 0, 1, evaluates=False, own_steps=count)
    program = Program(FixedPeriod(tau), segment_s=1e12)
    rows = simulate_timing(TimingPlan(program, workers, cluster, loop, state_bytes=0, seed=tau)).rows
    full = [row for row in rows if row.steps]
    return (full[-1].elapsed_s - full[0].elapsed_s) / (count - tau)


def draw(found: dict[int, list[float]]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained", facecolor="white")
        axes: Axes = figure.subplots()
        axes.plot(
            PERIODS, [1 + DELAY / tau for tau in PERIODS], color="#94a3b8", linestyle="--", label="no stragglers"
        )
        for (workers, times), colour in zip(found.items(), RUN_COLOURS, strict=False):
            theory = [expected_max(workers, tau) + DELAY / tau for tau in PERIODS]
            axes.plot(PERIODS, theory, color=colour, linewidth=1.5, label=f"{workers} workers")
            axes.plot(PERIODS, times, "o", color=colour, markersize=5)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="τ (local steps a round)", ylabel="time a step (mean compute time = 1)", ylim=(0, None))
        axes.legend(frameon=False, title="lines: theory; dots: simulator")
        return figure


def main() -> None:
    found = {workers: [simulated(Exponential(1.0), workers, tau) for tau in PERIODS] for workers in WORKERS}
    for workers, times in found.items():
        theory = np.array([expected_max(workers, tau) + DELAY / tau for tau in PERIODS])
        worst = float(np.abs(np.array(times) / theory - 1).max())
        print(
            f"{workers} workers: {', '.join(f'{time:.3f}' for time in times)}; theory off by {worst:.1%} at most"
        )
    heavy = [simulated(Pareto(0.5, 2.0), 8, tau, delay=0.0) - 1 for tau in (1, 16)]
    light = [simulated(Exponential(1.0), 8, tau, delay=0.0) - 1 for tau in (1, 16)]
    print(
        f"waiting at tau 16 against tau 1: exponential {light[1] / light[0]:.2f}, Pareto {heavy[1] / heavy[0]:.2f}"
    )
    save(draw(found), HERE / "straggler_effect.svg")


if __name__ == "__main__":
    main()
