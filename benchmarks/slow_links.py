"""Time to a goal on links of 20 Mbit/s: every step, fixed periods, AdaComm, hierarchical; compressed or not.

    python benchmarks/slow_links.py DIR [--limit-s 200]     # as root, with RAYSGD_DATA; keeps runs in DIR

Three hosts, network namespaces of this machine, each way of each link held to 20 Mbit/s by `tc tbf`, two workers on
each. LeNet on Fashion-MNIST, every worker 32 images a step, drawn at random, with the optimizer of
`configs/fashion.yaml`. Steps wait, as for an accelerator (`lib/accelerator.py`), since six workers share two cores.
What is compared is training time (`elapsed_s`, evaluations included) until the averaged model's loss on 1,024 fixed
training images is as low as where 192 steps of averaging at every step, uncompressed, end: that is the goal. It is
looked at every 32 steps; between two looks the logarithm of the loss is taken to be a line. The others have as much
time.

Settled before any run: periods of 4 and 16; AdaComm from 16, this project's default, with intervals of a tenth of the
time that averaging at every step takes (as in `papers/adacomm_error_runtime.py`); hierarchical with its defaults, 8
steps between averagings on a host and every 4th over all, a host's workers being a block; int8 and top-k (1 %) with
their defaults. One run each, the same seed. With --limit-s no run begins later; called again it does what is missing.
The figure has what is there.
"""

from __future__ import annotations

import argparse
import math
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.accelerator import OnAccelerator
from lib.arguments import docstring_parser
from lib.drawn import drawn
from lib.figures import STYLE, save
from lib.hosts import hosts, ray_on, run_script

from raysgd_local.tasks.memory import InMemory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HOSTS, ON_EACH, MBIT = 3, 2, 20
WORKERS, BATCH, JUDGED = HOSTS * ON_EACH, 32, 1024
EPOCH_STEPS, EPOCHS, MOST_EPOCHS = 32, 6, 200  # an epoch is what lies between two evaluations
HERE = Path(__file__).parent
PICTURE = HERE.parent / "docs" / "images" / "slow_links.svg"

SCHEDULES: dict[str, dict[str, Any]] = {
    "every step": {"schedule": {"kind": "every-step"}},
    "τ = 4": {"schedule": {"kind": "fixed", "tau": 4}},
    "τ = 16": {"schedule": {"kind": "fixed", "tau": 16}},
    "AdaComm": {"schedule": {"kind": "adacomm", "tau0": 16}},
    "hierarchical": {"schedule": {"kind": "hierarchical"}, "averaging": {"kind": "blocks"}},
}
COMPRESSIONS: dict[str, Any] = {"uncompressed": None, "int8": {"kind": "int8"}, "top-k, 1 %": {"kind": "top-k"}}


@dataclass(frozen=True, kw_only=True)
class DrawnClothes(OnAccelerator):
    """Images drawn at random, and the training loss as the judge."""

    def datasets(self) -> tuple[InMemory, InMemory]:
        return drawn(super().datasets()[0].tensors, WORKERS * BATCH * EPOCH_STEPS, JUDGED)


@dataclass(frozen=True)
class Job:
    """One run, named after its choices in the two tables."""

    schedule: str
    compression: str

    @property
    def name(self) -> str:
        words = f"{self.schedule}-{self.compression}".replace("τ", "tau").replace("%", "percent")
        return "".join(letter for letter in words.replace(" ", "-") if letter.isalnum() or letter == "-")

    def tree(self, storage: Path, sync: Curve | None) -> dict[str, Any]:
        """Its configuration; the others' time and AdaComm's interval follow from where `sync` ended."""
        algorithm = {**SCHEDULES[self.schedule], "compression": COMPRESSIONS[self.compression]}
        stop: dict[str, Any] = {}
        if sync is not None:
            stop = {"seconds": sync.at[-1], "target": {"metric": "loss", "value": sync.loss[-1]}}
        if self.schedule == "AdaComm" and sync is not None:
            schedule = {**SCHEDULES[self.schedule]["schedule"], "interval_s": sync.at[-1] / 10}
            algorithm["schedule"] = schedule
        return {
            "task": {
                "name": "slow_links:DrawnClothes",
                "epochs": EPOCHS if sync is None else MOST_EPOCHS,
                "batch_size": BATCH,
            },
            "algorithm": algorithm,
            "workers": {"min": WORKERS, "max": WORKERS, "balance": False},
            "stop": stop,
            "checkpoints": {"every_epochs": None},
            "storage": str(storage),
            "name": self.name,
        }


FIRST = Job("every step", "uncompressed")
JOBS = [
    FIRST,
    *(Job(s, c) for c in COMPRESSIONS for s in SCHEDULES if (s, c) != (FIRST.schedule, FIRST.compression)),
]


@dataclass(frozen=True)
class Curve:
    """A run's evaluations: when, in seconds of training time, and the loss; its rounds, and what all sent in them."""

    at: list[float]
    loss: list[float]
    rounds: int
    sent_mb: float

    def reaches(self, goal: float) -> float:
        """When the loss is at the goal; infinity if it never is. It begins at ln 10, that of a guess."""
        known = list(zip([0.0, *self.at], [math.log(10), *self.loss], strict=True))
        for (before_s, high), (after_s, low) in pairwise(known):
            if low <= goal:
                share = math.log(high / goal) / math.log(high / low) if high > low else 0.0
                return before_s + share * (after_s - before_s)
        return math.inf


def curve(folder: Path, job: Job) -> Curve | None:
    """What the finished run told; nothing where there is none."""
    import pandas as pd

    if not (folder / job.name / "result.json").exists():
        return None
    evals, rounds = (pd.read_csv(folder / job.name / f"{name}.csv") for name in ("evals", "rounds"))
    sent_mb = float(rounds["wire_bytes"].sum()) / 1e6
    return Curve(evals["elapsed_s"].tolist(), evals["loss"].tolist(), len(rounds), sent_mb)


# On the first host: the runs, one after the other.


def train_all(folder: Path, address: str, until_s: float, only: Sequence[str]) -> None:
    from raysgd_local import LocalSGDTrainer, config

    for job in JOBS:
        if job.schedule not in only or curve(folder, job) is not None or time.time() > until_s:
            continue
        shutil.rmtree(folder / job.name, ignore_errors=True)  # one that was broken off
        tree = job.tree(folder, None if job == FIRST else curve(folder, FIRST))
        LocalSGDTrainer.from_config(config.from_mapping(tree)).fit(address=address, observe=lambda _: None)
        print(f"{job.name}: done", flush=True)


# What came of it.


def tell(found: dict[Job, Curve]) -> None:
    sync = found[FIRST]
    goal = sync.loss[-1]
    print(f"goal: loss {goal:.3f}; averaging at every step is there after {sync.at[-1]:.1f} s")
    for job, one in found.items():
        there_s = one.reaches(goal)
        taken = (
            f"{there_s:6.1f} s, {sync.at[-1] / there_s:5.1f} x as soon"
            if math.isfinite(there_s)
            else "not reached"
        )
        print(f"{job.schedule:13s} {job.compression:13s} {taken}; {one.rounds} rounds, {one.sent_mb:.1f} MB")


def draw(found: dict[Job, Curve]) -> Figure:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained", facecolor="white")
        compressions = [name for name in COMPRESSIONS if any(job.compression == name for job in found)]
        panels = figure.subplots(1, len(compressions), sharex=True, sharey=True, squeeze=False).flat
        for axes, compression in zip(panels, compressions, strict=True):
            draw_one(axes, compression, found)
        figure.axes[0].legend(frameon=False, fontsize=9)
        figure.supxlabel("training time in seconds", fontsize=10)
        figure.supylabel("training loss of the averaged model", fontsize=10)
        return figure


def draw_one(axes: Axes, compression: str, found: dict[Job, Curve]) -> None:
    from matplotlib.ticker import NullLocator

    from raysgd_local.report.charts import RUN_COLOURS

    goal = found[FIRST].loss[-1]
    for colour, schedule in zip((*RUN_COLOURS[1:4], RUN_COLOURS[0], RUN_COLOURS[5]), SCHEDULES, strict=True):
        one = found.get(Job(schedule, compression))
        if one is None:
            continue
        width = 2.2 if schedule == "AdaComm" else 1.4
        axes.plot(one.at, one.loss, color=colour, linewidth=width, marker=".", label=schedule)
    axes.axhline(goal, color="#64748b", linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log", title=compression)
    axes.title.set_fontsize(10)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.set_xticks((2, 5, 10, 20, 50), ("2", "5", "10", "20", "50"))
    axes.set_yticks((0.5, 0.7, 1.0, 1.5), ("0.5", "0.7", "1.0", "1.5"))


def main() -> int:
    parser = docstring_parser(__doc__)
    parser.add_argument("folder", type=Path, help="where runs are kept")
    parser.add_argument("--limit-s", type=float, default=math.inf, help="begin no run later than this")
    parser.add_argument("--only", nargs="+", choices=SCHEDULES, default=list(SCHEDULES), metavar="SCHEDULE")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.inside:
        train_all(folder, options.inside, options.limit_s, options.only)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # told to end, it takes the hosts down first
    until_s = time.time() + options.limit_s
    if any(curve(folder, job) is None for job in JOBS):
        with hosts(HOSTS, MBIT, burst_kb=32, queue_ms=100) as found, ray_on(found, ON_EACH) as address:
            words = (str(folder), "--inside", address, "--limit-s", str(until_s), "--only", *options.only)
            run_script(found[0], __file__, *words)
    curves = {job: one for job in JOBS if (one := curve(folder, job)) is not None}
    tell(curves)
    if len(curves) < len(JOBS):
        print(f"{len(JOBS) - len(curves)} runs are missing: call it again")
    save(draw(curves), PICTURE)
    return int(len(curves) < len(JOBS))


if __name__ == "__main__":
    sys.exit(main())
