"""AdaComm against fixed periods, by run time: Wang & Joshi, "Adaptive Communication Strategies to Achieve the Best
Error-Runtime Trade-off in Local-Update SGD", MLSys 2019, sections 4 and 5.

    python benchmarks/papers/adacomm_error_runtime.py DIR [--jobs 2]     # with RAYSGD_DATA; keeps curves in DIR

Really learning, in virtual time: 16 workers with 4 images a step each, an MLP of 32 hidden units on 64 numbers an
image, plain SGD with a constant learning rate. A step takes 1 unit of time on every worker, an averaging 1, 2, 4 or
8: the ratios of communication to computation. What is compared is the averaged model's loss on 8,192 fixed training
images, evaluated every 64 steps; the mean of five evaluations counts. The workers are rows of one tensor (`rows.py`),
under the package's own schedules; with --fleet they are the simulator's, which takes some ten times as long.

The problem follows the theory, in which a period τ adds η²L²σ²(τ−1) to the error that is left in the end, σ² the
noise of a worker's gradient. So the noise has to be large and to stay: batches are small and there are many of them,
every image is drawn at random from all of Fashion-MNIST, and so small a model can't learn it by heart. And curves have
to become flat within the run: the 64 numbers are the images' largest principal components, each scaled to variance 1,
so that curvature is alike in all directions. The learning rate is the largest, of a grid of factors of two, with which
averaging at every step ends within 5 % of the best.

Averaging at every step has 3,072 steps; where it ends is the goal of the others, of each seed its own. They have as
much time, and at most twice the steps; the longest period five times, to show where it stops. AdaComm has intervals of
a fixed time, a tenth of what averaging at every step takes, and by the paper's search the initial period that, of the
fixed ones, has the lowest loss after one interval (of those within 1 % the longest: it can only become shorter). That
is one rule for all four ratios; at ratio 4 intervals half as long are tried too.

How it was found: from 4 workers with 16 images, on pixels, where the longest period had no floor above the others',
noise was raised by smaller batches and more workers; of some ten such problems (2, 4 and 8 images, 8 and 16 workers,
rates from 0.0125 to 0.8, pixels and components) this is the one with as many images a step in all as before. With 8
workers of 4 images the floor is as visible, but AdaComm's search for τ₀ picks 4 and gains nothing at ratio 4 in one
run; with 8 of 8 images τ = 64 is as good as AdaComm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
import numpy as np
from adacomm_runs import EPOCH_STEPS, Curve, Job, run
from lib.arguments import docstring_parser
from lib.figures import STYLE, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from raysgd_local.report.charts import RUN_COLOURS

PERIODS, RATIOS, SEEDS = (1, 4, 16, 64), (1, 2, 4, 8), (0, 1, 2)
RATES, CLOSE = (0.05, 0.1, 0.2, 0.4, 0.8), 1.05
EPOCHS, MOST_EPOCHS, FLOOR_EPOCHS = 48, 96, 240  # of averaging at every step, of the others, of the longest period
INTERVALS = 10  # of AdaComm, in the time of averaging at every step
OTHER_INTERVALS = 20  # tried at ratio 4 beside them
TIED = 1.01
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Study:
    """All that was run. `fixed` are by period, at ratio 1, `adaptive` by ratio, of each a curve a seed; `other` is
    AdaComm at ratio 4 with intervals half as long.
    """

    rate: float
    fixed: dict[int, list[Curve]]
    tau0: dict[int, int]
    adaptive: dict[int, list[Curve]]
    other: list[Curve]

    @property
    def goals(self) -> list[float]:
        """Where averaging at every step ends, a seed each."""
        return [curve.smooth[-1] for curve in self.fixed[1]]


def sync_units(ratio: int) -> float:
    """How long averaging at every step takes."""
    return EPOCHS * EPOCH_STEPS * (1.0 + ratio)


def study(folder: Path, jobs: int, fleet: bool) -> Study:
    with ProcessPoolExecutor(jobs) as pool:

        def curves(tasks: Sequence[Job]) -> dict[Job, Curve]:
            return dict(zip(tasks, pool.map(partial(run, folder, fleet), tasks), strict=True))

        rate = learning_rate(curves([Job(1, 1, 0, rate, EPOCHS) for rate in RATES]))
        epochs = dict.fromkeys(PERIODS, MOST_EPOCHS) | {1: EPOCHS, max(PERIODS): FLOOR_EPOCHS}
        done = curves([Job(tau, 1, seed, rate, epochs[tau]) for tau in PERIODS for seed in SEEDS])
        fixed = {tau: [curve for job, curve in done.items() if job.tau == tau] for tau in PERIODS}
        tau0 = {ratio: initial_period(fixed, ratio) for ratio in RATIOS}
        planned = {ratio: [adaptive_job(tau0[ratio], ratio, seed, rate) for seed in SEEDS] for ratio in RATIOS}
        other = [adaptive_job(tau0[4], 4, seed, rate, OTHER_INTERVALS) for seed in SEEDS]
        done = curves([job for jobs in (*planned.values(), other) for job in jobs])
    adaptive = {ratio: [done[job] for job in jobs] for ratio, jobs in planned.items()}
    return Study(rate, fixed, tau0, adaptive, [done[job] for job in other])


def learning_rate(tried: dict[Job, Curve]) -> float:
    """The largest with which averaging at every step ends close to the best."""
    ends = {job.rate: curve.smooth[-1] for job, curve in tried.items()}
    print("every step ends at " + ", ".join(f"{end:.4f} with rate {rate:g}" for rate, end in ends.items()))
    return max(rate for rate, end in ends.items() if end <= CLOSE * min(ends.values()))


def initial_period(fixed: dict[int, list[Curve]], ratio: int) -> int:
    """The longest of the periods with the lowest mean loss after AdaComm's first interval."""
    units = sync_units(ratio) / INTERVALS
    found = {tau: fmean(curve.at_ratio(ratio, 1).at_time(units) for curve in fixed[tau]) for tau in PERIODS}
    losses = ", ".join(f"{loss:.3f} from {tau}" for tau, loss in found.items())
    print(f"ratio {ratio}: after {units:g} units {losses}")
    return max(tau for tau, loss in found.items() if loss <= TIED * min(found.values()))


def adaptive_job(tau0: int, ratio: int, seed: int, rate: float, intervals: int = INTERVALS) -> Job:
    units = sync_units(ratio)
    return Job(tau0, ratio, seed, rate, MOST_EPOCHS, interval=units / intervals, units=units)


def shares(found: Study, curves: Iterable[Curve], ratio: int) -> list[float]:
    """Of the time that averaging at every step takes to its goal the part that these take, a seed each."""
    every_step = (curve.at_ratio(ratio, 1) for curve in found.fixed[1])
    rows = zip(curves, every_step, found.goals, strict=True)
    return [curve.reaches(goal) / own.reaches(goal) for curve, own, goal in rows]


def tell(found: Study) -> None:
    print(f"rate {found.rate:g}; every step ends at {', '.join(f'{goal:.4f}' for goal in found.goals)}")
    print("and is there first after " + ", ".join(f"{part:.2f} of its time" for part in first_arrivals(found)))
    for ratio in RATIOS:
        rows = {f"fixed {tau}": [c.at_ratio(ratio, 1) for c in curves] for tau, curves in found.fixed.items()}
        rows[f"AdaComm from {found.tau0[ratio]}"] = found.adaptive[ratio]
        if ratio == 4:
            rows[f"{OTHER_INTERVALS} intervals"] = found.other
        print(f"communication : computation {ratio}")
        for name, curves in rows.items():
            print(f"  {name:16s} " + told(curves, shares(found, curves, ratio)))


def first_arrivals(found: Study) -> list[float]:
    return [curve.reaches(goal) / curve.at[-1] for curve, goal in zip(found.fixed[1], found.goals, strict=True)]


def told(curves: Sequence[Curve], parts: Sequence[float]) -> str:
    """Their times, and what their losses come to: after half of their steps and at their end, and between seeds."""
    taken = ", ".join(f"{part:.2f}" if math.isfinite(part) else "never" for part in parts)
    half, *ends = (fmean(c.smooth[len(c.loss) // 2] for c in curves), *(c.smooth[-1] for c in curves))
    steps = [len(c.loss) * EPOCH_STEPS for c in curves]
    seeds = f"{min(ends):.3f} to {max(ends):.3f}"
    return f"{taken} of the time; {half:.3f} half-way, {fmean(ends):.3f} ({seeds}) after {max(steps):,} steps"


def draw(found: Study) -> Figure:
    colours = dict(zip((*PERIODS, "adaptive"), (*RUN_COLOURS[1:5], RUN_COLOURS[0]), strict=True))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 6.4), layout="constrained", facecolor="white")
        for axes, ratio in zip(figure.subplots(2, 2, sharey=True).flat, RATIOS, strict=True):
            for tau, curves in found.fixed.items():
                name = "every step" if tau == 1 else f"τ = {tau}"
                draw_mean(axes, [curve.at_ratio(ratio, 1) for curve in curves], colours[tau], name)
            draw_mean(axes, found.adaptive[ratio], colours["adaptive"], "AdaComm", strong=True)
            axes.axhline(fmean(found.goals), color="#64748b", linewidth=0.8, linestyle="--")
            axes.set(yscale="log", xlim=(0, sync_units(ratio)), ylim=(0.29, 0.85))
            axes.set_title(f"communication : computation {ratio}", fontsize=10)
            axes.yaxis.set_minor_locator(NullLocator())
            axes.set_yticks((0.3, 0.4, 0.5, 0.6, 0.8), ("0.3", "0.4", "0.5", "0.6", "0.8"))
        figure.axes[0].legend(frameon=False)
        figure.supxlabel("time (a step = 1)", fontsize=10)
        figure.supylabel("training loss of the averaged model", fontsize=10)
        return figure


def draw_mean(axes: Axes, curves: Sequence[Curve], colour: str, name: str, *, strong: bool = False) -> None:
    """The mean of the seeds, and what lies between them."""
    length = min(len(curve.at) for curve in curves)
    at = np.mean([curve.at[:length] for curve in curves], axis=0)
    losses = np.array([curve.smooth[:length] for curve in curves])
    axes.fill_between(at, losses.min(axis=0), losses.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    axes.plot(at, losses.mean(axis=0), color=colour, linewidth=2.2 if strong else 1.4, label=name)


def main() -> None:
    parser = docstring_parser(__doc__)
    parser.add_argument("folder", type=Path, help="where curves are kept")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--fleet", action="store_true", help="by the simulator's fleet: half an hour and more")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    found = study(options.folder, options.jobs, options.fleet)
    tell(found)
    save(draw(found), HERE / "adacomm_error_runtime.svg")


if __name__ == "__main__":
    main()
