"""Makes the README's picture from three real runs on this machine, Fashion-MNIST with LeNet and 4 workers.

    python docs/images/make.py [RUNS]

RUNS is where the runs go; those that are there already are not run again. Needs the data set in RAYSGD_DATA.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raysgd_local import run_directory
from raysgd_local.report.charts import RUN_COLOURS, running_mean, thin
from raysgd_local.run_directory import Run

HERE = Path(__file__).parent
CONFIG = HERE.parents[1] / "configs" / "fashion.yaml"
SETTINGS = {
    "AdaComm": ["algorithm.schedule.kind=adacomm"],
    "every step": ["algorithm.schedule.kind=every-step"],
    "fixed, τ = 16": ["algorithm.schedule.kind=fixed", "algorithm.schedule.tau=16"],
}
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e8f0",
    "lines.linewidth": 1.8,
    "svg.hashsalt": "raysgd-local",
}


def train(label: str, storage: Path) -> Run:
    name = label.partition(",")[0].replace(" ", "-").lower()
    if not (storage / name / run_directory.RESULT).exists():
        options = [word for setting in SETTINGS[label] for word in ("--set", setting)]
        command = [sys.executable, "-m", "raysgd_local.cli", "train", str(CONFIG), *options]
        subprocess.run([*command, "--name", name, "--storage", str(storage)], check=True)
    return run_directory.load(storage / name)


def draw(runs: dict[str, Run]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained", facecolor="white")
        loss, tau = figure.subplots(1, 2, width_ratios=(3, 2))
        for (label, run), colour in zip(runs.items(), RUN_COLOURS, strict=False):
            draw_loss(loss, run, label, colour)
            tau.step(
                [0.0, *run.rounds["elapsed_s"]], [run.rounds["tau"].iloc[0], *run.rounds["tau"]], color=colour
            )
        loss.set(xlabel="training time (s)", ylabel="training loss", xlim=(0, None), ylim=(0.2, 1.0))
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
    runs = {label: train(label, storage) for label in SETTINGS}
    draw(runs).savefig(HERE / "loss-against-time.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
