"""AdaComm against fixed periods, by run time: Wang & Joshi, "Adaptive Communication Strategies to Achieve the Best
Error-Runtime Trade-off in Local-Update SGD", MLSys 2019, sections 4 and 5.

    python benchmarks/papers/adacomm_error_runtime.py DIR [--jobs 2]     # with RAYSGD_DATA; keeps curves in DIR

Really learning, in virtual time: 4 workers, as in the paper, an MLP of 32 hidden units on Fashion-MNIST, 16 images a
step and worker, plain SGD with a constant learning rate. As in the theory every image is drawn at random from all
60,000, so that gradients stay noisy and no worker can learn a part of its own by heart. A step takes 1 unit of time on
every worker, an averaging 1, 2, 4 or 8: the ratios of communication to computation. What is compared is the averaged
model's loss on 2,048 fixed training images, evaluated every 64 steps; the mean of five evaluations counts.

Averaging at every step has 3,072 steps; where it ends is the goal of the others, of each seed its own. They have as
much time, and at most twice the steps; the longest period five times, to show whether it ever gets as low. The
learning rate is large, so that its noise makes the floors: the largest, of a grid of factors of two, with which
averaging at every step ends within 5 % of the best. AdaComm has intervals of a fixed time, a tenth of what averaging
at every step takes, and by the paper's search the initial period that, of the fixed ones, has the lowest loss after
one interval (of those within 1 % the longest: it can only become shorter). At ratio 4 other intervals and initial
periods are tried too: it hangs on them. This problem, the interval and the rule for ties were settled when results of
others were known: on a few thousand fixed images, and with shorter intervals, AdaComm takes more of the time.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from figure_style import STYLE
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import nn

from raysgd_local import AdaComm, Algorithm, FixedPeriod, LocalSGDTrainer
from raysgd_local.algorithms.schedules import Schedule
from raysgd_local.config import Checkpoints, Config, Stop, Workers
from raysgd_local.report.charts import RUN_COLOURS
from raysgd_local.simulation.cluster_model import ClusterModel
from raysgd_local.simulation.step_times import Constant
from raysgd_local.simulator import Conditions
from raysgd_local.tasks import FashionMNIST, Optimizer
from raysgd_local.tasks.memory import InMemory
from raysgd_local.tasks.models import mlp

PERIODS, RATIOS, SEEDS = (1, 4, 16, 64), (1, 2, 4, 8), (0, 1, 2)
RATES, CLOSE = (0.05, 0.1, 0.2, 0.4), 1.05
WORKERS, BATCH, HIDDEN, JUDGED = 4, 16, 32, 2048
EPOCH_STEPS = 64  # an epoch is what lies between two evaluations
EPOCHS, MOST_EPOCHS, FLOOR_EPOCHS = 48, 96, 240  # of averaging at every step, of the others, of the longest period
INTERVALS = 10  # of AdaComm, in the time of averaging at every step
OTHERS = {"from 16, 20 intervals": (16, 20), "from 4, 20 intervals": (4, 20)}
TIED = 1.01
STEP_S = 0.01  # a unit of time
LAST = 5  # evaluations, of which the mean counts: single ones are noisy
HERE = Path(__file__).parent


class Drawn(InMemory):
    """At every position some sample, another one each time."""

    def __len__(self) -> int:
        return WORKERS * BATCH * EPOCH_STEPS

    def __getitems__(self, positions: Sequence[int]) -> Any:
        return super().__getitems__(torch.randint(len(self.tensors[0]), (len(positions),)).tolist())


@dataclass(frozen=True, kw_only=True)
class DrawnClothes(FashionMNIST):
    """What is evaluated on is a part of the training set: what is judged is the training loss."""

    def make_model(self) -> nn.Module:
        return mlp(28 * 28, HIDDEN, 10)

    def datasets(self) -> tuple[InMemory, InMemory]:
        train = super().datasets()[0].tensors
        return Drawn(*train), InMemory(*(tensor[:JUDGED] for tensor in train))


@dataclass(frozen=True)
class Job:
    """One run: a fixed period, or with `interval` AdaComm from `tau`; at most `epochs`, and `units` of time."""

    tau: int
    ratio: int
    seed: int
    rate: float
    epochs: int
    interval: float = 0.0
    units: float = math.inf

    @property
    def name(self) -> str:
        kind = f"adacomm-{self.interval:g}" if self.interval else "fixed"
        return f"{kind}-tau{self.tau}-ratio{self.ratio}-rate{self.rate:g}-seed{self.seed}"

    @property
    def schedule(self) -> Schedule:
        return AdaComm(self.tau, self.interval * STEP_S) if self.interval else FixedPeriod(self.tau)


@dataclass(frozen=True)
class Curve:
    """Of each evaluation the time, in units, and the loss; of each round the time at its end and its period."""

    at: list[float]
    loss: list[float]
    rounds_at: list[float]
    tau: list[int]

    @property
    def smooth(self) -> list[float]:
        """At each evaluation the mean of the last few."""
        return [fmean(self.loss[max(0, k - LAST + 1) : k + 1]) for k in range(len(self.loss))]

    def reaches(self, goal: float) -> float:
        """When the loss is there; infinity if it never is."""
        found = (at for at, loss in zip(self.at[LAST - 1 :], self.smooth[LAST - 1 :], strict=True) if loss <= goal)
        return next(found, math.inf)

    def at_time(self, units: float) -> float:
        """The loss then, between evaluations on a line from one's logarithm to the other's; it begins at ln 10."""
        known = np.log([math.log(10), *self.loss])
        return float(np.exp(np.interp(units, [0.0, *self.at], known)))

    def at_ratio(self, ratio: int, old: int) -> Curve:
        """The same steps where an averaging takes another time: what a fixed period learns doesn't hang on time."""
        spent = np.arange(1, len(self.rounds_at) + 1) * float(old - ratio)
        moved = np.array(self.rounds_at) - spent
        number = np.searchsorted(self.rounds_at, np.array(self.at) - 1e-6)
        return Curve(moved[number].tolist(), self.loss, moved.tolist(), self.tau)


def run(folder: Path, job: Job) -> Curve:
    """The job's curve; what is in `folder` is not run again."""
    path = folder / f"{job.name}.json"
    if not path.exists():
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as storage:
            path.write_text(json.dumps(asdict(simulated(job, storage))))
        print(f"{job.name}: done", flush=True)
    return Curve(**json.loads(path.read_text()))


def simulated(job: Job, storage: str) -> Curve:
    optimizer = Optimizer(lr=job.rate, momentum=0.0)
    config = Config(
        task=DrawnClothes(epochs=job.epochs, batch_size=BATCH, optimizer=optimizer),
        algorithm=Algorithm(schedule=job.schedule),
        workers=Workers(min=WORKERS, max=WORKERS, balance=False),
        stop=Stop(seconds=job.units * STEP_S if math.isfinite(job.units) else None),
        checkpoints=Checkpoints(every_epochs=None),
        storage=storage,
        seed=job.seed,
    )
    cluster = ClusterModel(Constant(STEP_S), latency_ms=0.0, round_ms=1000 * STEP_S * job.ratio)
    result = LocalSGDTrainer.from_config(config).simulate(Conditions(cluster))
    rounds, evals = (pd.read_csv(Path(result.path) / name) for name in ("rounds.csv", "evals.csv"))
    ends = (rounds["steps"] / WORKERS + job.ratio).cumsum()
    at = ends[np.searchsorted(rounds["round"], evals["round"])]
    return Curve(at.tolist(), evals["loss"].tolist(), ends.tolist(), rounds["tau"].tolist())


@dataclass(frozen=True)
class Study:
    """All that was run. `fixed` are by period, at ratio 1, `adaptive` by ratio, of each a curve a seed; `others` are
    AdaComm at ratio 4 with other parameters.
    """

    rate: float
    fixed: dict[int, list[Curve]]
    tau0: dict[int, int]
    adaptive: dict[int, list[Curve]]
    others: dict[str, list[Curve]]

    @property
    def goals(self) -> list[float]:
        """Where averaging at every step ends, a seed each."""
        return [curve.smooth[-1] for curve in self.fixed[1]]


def sync_units(ratio: int) -> float:
    """How long averaging at every step takes."""
    return EPOCHS * EPOCH_STEPS * (1.0 + ratio)


def study(folder: Path, jobs: int) -> Study:
    with ProcessPoolExecutor(jobs) as pool:

        def curves(tasks: Sequence[Job]) -> dict[Job, Curve]:
            return dict(zip(tasks, pool.map(partial(run, folder), tasks), strict=True))

        rate = learning_rate(curves([Job(1, 1, 0, rate, EPOCHS) for rate in RATES]))
        epochs = dict.fromkeys(PERIODS, MOST_EPOCHS) | {1: EPOCHS, max(PERIODS): FLOOR_EPOCHS}
        done = curves([Job(tau, 1, seed, rate, epochs[tau]) for tau in PERIODS for seed in SEEDS])
        fixed = {tau: [curve for job, curve in done.items() if job.tau == tau] for tau in PERIODS}
        tau0 = {ratio: initial_period(fixed, ratio) for ratio in RATIOS}
        planned = {ratio: [adaptive_job(tau0[ratio], ratio, seed, rate) for seed in SEEDS] for ratio in RATIOS}
        other = {
            name: [adaptive_job(tau, 4, seed, rate, n) for seed in SEEDS] for name, (tau, n) in OTHERS.items()
        }
        done = curves([job for jobs in (*planned.values(), *other.values()) for job in jobs])
    return Study(
        rate,
        fixed,
        tau0,
        {ratio: [done[job] for job in jobs] for ratio, jobs in planned.items()},
        {name: [done[job] for job in jobs] for name, jobs in other.items()},
    )


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


def share(curves: Iterable[Curve], goals: Sequence[float], ratio: int) -> list[float]:
    """Of the time of averaging at every step the part that it takes to where that ends, a seed each."""
    return [curve.reaches(goal) / sync_units(ratio) for curve, goal in zip(curves, goals, strict=True)]


def tell(found: Study) -> None:
    print(f"rate {found.rate:g}; every step ends at {', '.join(f'{goal:.4f}' for goal in found.goals)}")
    for ratio in RATIOS:
        rows = {f"fixed {tau}": [c.at_ratio(ratio, 1) for c in curves] for tau, curves in found.fixed.items()}
        rows[f"AdaComm from {found.tau0[ratio]}"] = found.adaptive[ratio]
        if ratio == 4:
            rows |= found.others
        print(f"communication : computation {ratio}")
        for name, curves in rows.items():
            shares = share(curves, found.goals, ratio)
            end = fmean(curve.smooth[-1] for curve in curves)
            taken = ", ".join(f"{one:.2f}" if math.isfinite(one) else "never" for one in shares)
            print(f"  {name:21s} there after {taken} of the time; ends at {end:.4f} after {curves[0].at[-1]:,.0f}")


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where curves are kept")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    found = study(options.folder, options.jobs)
    tell(found)
    draw(found).savefig(HERE / "adacomm_error_runtime.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
