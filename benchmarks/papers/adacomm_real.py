"""AdaComm against fixed periods in real time: 16 real workers, links on which an averaging takes as long as 4 steps.

    python benchmarks/papers/adacomm_real.py DIR [--epochs 48] [--mbit 16]     # as root, with RAYSGD_DATA

The problem, and every setting, are those of `adacomm_error_runtime.py` at ratio 4, where they were chosen in virtual
time: learning rate 0.4, AdaComm from 16 with intervals of a tenth of the time that averaging at every step takes. Here
the workers are processes on four hosts, network namespaces of this machine, four on each, and time is real. A step
waits 20 ms as for an accelerator, since 16 workers share two cores; each way of each link is held by `tc tbf` to a rate
that was chosen, before any run of full length, so that an averaging takes as long as 4 steps. What both took is told.

Averaging at every step has 3,072 steps; where it ends is the goal of the others, which have as much time as it took. As
there, the mean of five evaluations counts. One run each, kept in DIR; called again it does what is missing.
"""

from __future__ import annotations

import argparse
import math
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adacomm_runs import EPOCH_STEPS, WORKERS, Curve, Job, WaitingClothes, configuration
from lib.arguments import docstring_parser
from lib.figures import STYLE, save
from lib.hosts import hosts, ray_on, run_script

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
HOSTS, STEP_S, MBIT = 4, 0.02, 16.0
PERIODS, TAU0, RATE = (1, 4, 16, 64), 16, 0.4
EPOCHS, INTERVALS, RATIO = 48, 10, 4
SYNC = "every step"
NAMES = {SYNC: 1, **{f"τ = {tau}": tau for tau in PERIODS[1:]}, "AdaComm": TAU0}


def job(name: str, epochs: int, sync_s: float) -> Job:
    """The run of that name; the others have `sync_s` seconds, and of epochs more than fit into them."""
    if name == SYNC:
        return Job(1, RATIO, 0, RATE, epochs)
    units = sync_s / STEP_S
    enough = Job(NAMES[name], RATIO, 0, RATE, epochs * (1 + RATIO) * 2, units=units)
    return replace(enough, interval=units / INTERVALS) if name == "AdaComm" else enough


@dataclass(frozen=True)
class Ran:
    """A finished run: its curve, in seconds, and what a step and an averaging took, as the mean of its rounds."""

    curve: Curve
    step_s: float
    averaging_s: float


def folder_of(folder: Path, name: str) -> Path:
    return folder / name.replace(" ", "-").replace("τ", "tau").replace("=-", "")


def ran(folder: Path, name: str) -> Ran | None:
    """What the run told; nothing where it has not ended."""
    import pandas as pd

    path = folder_of(folder, name)
    if not (path / "result.json").exists():
        return None
    rounds, evals = (pd.read_csv(path / f"{table}.csv") for table in ("rounds", "evals"))
    columns = (evals["elapsed_s"], evals["loss"], rounds["elapsed_s"], rounds["tau"])
    return Ran(Curve(*(column.tolist() for column in columns)), *seconds(rounds))


def seconds(rounds: pd.DataFrame) -> tuple[float, float]:
    """Of a step, and of an averaging with the wait for the slowest."""
    step_s = rounds["compute_s"].sum() * WORKERS / rounds["steps"].sum()
    return float(step_s), float((rounds["sync_s"] + rounds["wait_s"]).mean())


# On the first host: the runs, one after the other.


def train_all(folder: Path, address: str, epochs: int) -> None:
    from raysgd_local import LocalSGDTrainer

    for name in NAMES:
        if ran(folder, name) is not None:
            continue
        path = folder_of(folder, name)
        shutil.rmtree(path, ignore_errors=True)  # one that was broken off
        sync = ran(folder, SYNC)
        sync_s = sync.curve.at[-1] if sync is not None else math.inf
        task = WaitingClothes(step_s=STEP_S)
        config = configuration(job(name, epochs, sync_s), str(folder), task, STEP_S, path.name)
        LocalSGDTrainer.from_config(config).fit(address=address, observe=lambda _: None)
        print(f"{name}: done", flush=True)


# What came of it.


def tell(found: dict[str, Ran]) -> None:
    sync = found[SYNC]
    goal = sync.curve.smooth[-1]
    there_s = sync.curve.reaches(goal)
    print(f"goal: loss {goal:.4f}, where every step is first after {there_s:.1f} s of {sync.curve.at[-1]:.1f} s")
    for name, one in found.items():
        own_s = one.curve.reaches(goal)
        when = f"{own_s:6.1f} s, {there_s / own_s:.2f} x as soon" if math.isfinite(own_s) else "never"
        steps = len(one.curve.loss) * EPOCH_STEPS
        took = f"step {one.step_s * 1e3:.1f} ms, averaging {one.averaging_s * 1e3:.1f} ms"
        took += f" ({one.averaging_s / one.step_s:.2f} steps)"
        last = f"{one.curve.smooth[-1]:.4f} after {steps:,} steps"
        print(f"{name:10s} {when}; ends at {last}; {len(one.curve.tau)} rounds; {took}")


def draw(found: dict[str, Ran]) -> Figure:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.0), layout="constrained", facecolor="white")
        losses, periods = figure.subplots(1, 2, width_ratios=(2, 1))
        draw_losses(losses, found)
        draw_periods(periods, found)
        figure.supxlabel("training time in seconds", fontsize=10)
        return figure


def draw_losses(axes: Axes, found: dict[str, Ran]) -> None:
    from matplotlib.ticker import NullLocator

    from raysgd_local.report.charts import RUN_COLOURS

    for colour, name in zip((*RUN_COLOURS[1:5], RUN_COLOURS[0]), NAMES, strict=True):
        if name in found:
            curve, width = found[name].curve, 2.2 if name == "AdaComm" else 1.4
            axes.plot(curve.at, curve.smooth, color=colour, linewidth=width, label=name)
    axes.axhline(found[SYNC].curve.smooth[-1], color="#64748b", linewidth=0.8, linestyle="--")
    axes.set(yscale="log", ylim=(0.29, 0.85), ylabel="training loss of the averaged model")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_yticks((0.3, 0.4, 0.5, 0.6, 0.8), ("0.3", "0.4", "0.5", "0.6", "0.8"))
    axes.legend(frameon=False)


def draw_periods(axes: Axes, found: dict[str, Ran]) -> None:
    from raysgd_local.report.charts import RUN_COLOURS

    if "AdaComm" in found:
        curve = found["AdaComm"].curve
        axes.step([0.0, *curve.rounds_at[:-1]], curve.tau, where="post", color=RUN_COLOURS[0])
    axes.set(ylim=(0, TAU0 + 1), ylabel="AdaComm's τ")


def main() -> int:
    parser = docstring_parser(__doc__)
    parser.add_argument("folder", type=Path, help="where runs are kept")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"of {EPOCH_STEPS} steps, at every step")
    parser.add_argument("--mbit", type=float, default=MBIT, help="of each way of each link")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.inside:
        train_all(folder, options.inside, options.epochs)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # told to end, it takes the hosts down first
    if any(ran(folder, name) is None for name in NAMES):
        with (
            hosts(HOSTS, options.mbit, burst_kb=3, queue_ms=200) as found,
            ray_on(found, WORKERS // HOSTS) as address,
        ):
            words = (str(folder), "--inside", address, "--epochs", str(options.epochs))
            run_script(found[0], __file__, *words)
    runs = {name: one for name in NAMES if (one := ran(folder, name)) is not None}
    tell(runs)
    save(draw(runs), HERE / "adacomm_real.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
