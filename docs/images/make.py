"""Makes the README's picture from real runs on this machine: python docs/images/make.py [RUNS]

scikit-learn's digits, a small CNN, 4 workers; the three schedules in turn, five times. Of each the run of median
duration is drawn, since a machine does other things too. Runs that are in the directory RUNS are not run again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import ray
from lib import figures
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from ray.train import CheckpointConfig, RunConfig, ScalingConfig

from raysgd_local import AdaComm, Algorithm, EveryStep, FixedPeriod, LocalSGDTrainer
from raysgd_local.algorithms.schedules import Schedule
from raysgd_local.report.charts import RUN_COLOURS, running_mean, thin
from raysgd_local.run_files import reader
from raysgd_local.run_files.reader import Run
from raysgd_local.tasks import Digits

REPEATS = 5
SCHEDULES: dict[str, Schedule] = {
    "AdaComm": AdaComm(tau0=16, interval_s=1),
    "every step": EveryStep(),
    "fixed, τ = 16": FixedPeriod(tau=16),
}
STYLE = {**figures.STYLE, "lines.linewidth": 1.8}


def train(label: str, repeat: int, storage: Path) -> Run:
    name = f"{label.partition(',')[0].replace(' ', '-').lower()}-{repeat}"
    if not (storage / name / reader.RESULT).exists():
        LocalSGDTrainer(
            Digits(model="cnn", epochs=30),
            algorithm=Algorithm(schedule=SCHEDULES[label]),
            scaling_config=ScalingConfig(num_workers=4),
            run_config=RunConfig(
                name=name, storage_path=str(storage), checkpoint_config=CheckpointConfig(num_to_keep=1)
            ),
        ).fit()
    return reader.load(storage / name)


def median(runs: list[Run]) -> Run:
    return sorted(runs, key=lambda run: float(run.result["elapsed_s"]))[len(runs) // 2]


def draw(runs: dict[str, Run]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained", facecolor="white")
        loss, tau = figure.subplots(1, 2, width_ratios=(3, 2))
        for (label, run), colour in zip(runs.items(), RUN_COLOURS, strict=False):
            draw_loss(loss, run, label, colour)
            tau.step(
                [0.0, *run.rounds["elapsed_s"]], [run.rounds["tau"].iloc[0], *run.rounds["tau"]], color=colour
            )
        loss.set(xlabel="training time (s)", ylabel="training loss", yscale="log", xlim=(0, None))
        loss.legend(frameon=False, title="held-out accuracy at the end")
        tau.set_yscale("log", base=2)
        tau.yaxis.set_major_formatter("{x:g}")
        tau.set(xlabel="training time (s)", ylabel="τ (local steps a round)", xlim=(0, None), ylim=(0.9, 20))
        return figure


def draw_loss(axes: Axes, run: Run, label: str, colour: str) -> None:
    totals = thin(run.rounds)
    smooth = running_mean(totals["loss"], totals["total_samples"])
    accuracy = run.evals["accuracy"].iloc[-1]
    axes.plot(totals["elapsed_s"], smooth, color=colour, label=f"{label}: {accuracy:.3f}")


def main() -> None:
    storage = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/picture").resolve()
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    runs: dict[str, list[Run]] = {label: [] for label in SCHEDULES}
    for repeat in range(REPEATS):
        for label in SCHEDULES:
            runs[label].append(train(label, repeat, storage))
    drawn = {label: median(repeats) for label, repeats in runs.items()}
    figures.save(draw(drawn), Path(__file__).parent / "loss-against-time.svg")


if __name__ == "__main__":
    main()
