"""What sweeps are worth: does the simulator rank configurations as real runs do, does a switch point need a search?

    python benchmarks/tuning.py ranking [--keep DIR] [--figure SVG]   # a quarter of an hour
    python benchmarks/tuning.py switch [--keep DIR] [--figure SVG]    # half an hour, with RAYSGD_DATA

`ranking` tries each of 24 points on digits on Ray on this machine, with as many workers as it has cores, and on the
simulator, on the cluster that one run beforehand met: fixed, τ = 1, none of the points. The ranks by `loss_at_budget`
have to correlate by at least 0.7 (Spearman).

`switch` runs the sweep `tune_configs/post-local-switch.yaml` with the paper's period of 16 alone (with all of it the
sweep takes three times as long) and three seeds, then its best switch point and the paper's, the first decay of the
learning rate, again from seeds that it did not have, and beside them the recipe `stability-switch` as it is. The best's
median time to the target has to be no longer than the rule's.

With --keep, what is finished there is not run again, so that Ctrl-C does no harm.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tuning_figures
import yaml
from lib.arguments import docstring_parser
from lib.figures import save
from lib.run_directories import kept_or_temporary
from scipy.stats import spearmanr

from raysgd_local import config, tuning
from raysgd_local.config import Config, load_cluster
from raysgd_local.trainer import LocalSGDTrainer
from raysgd_local.tuning.command import run_trials
from raysgd_local.tuning.result_files import write_results
from raysgd_local.tuning.results import Trial, is_finished, ranked
from raysgd_local.tuning.simulated import simulate_all
from raysgd_local.tuning.sweep import Sweep

LIMIT = 0.7
SEEDS, SWEPT = (1, 2, 3), (4, 5, 6)
WORKERS = os.cpu_count() or 1
SWITCH = Path(__file__).parents[1] / "tune_configs" / "post-local-switch.yaml"
PERIOD = "algorithm.schedule.then.tau"
FIXED = {"kind": "fixed", "tau": 16}
METHODS: tuple[dict[str, Any], ...] = (  # those of tune_configs/methods.yaml, and three more periods
    {"schedule": {"kind": "every-step"}},
    {"schedule": {"kind": "fixed", "tau": 4}},
    {"schedule": FIXED},
    {"schedule": {"kind": "fixed", "tau": 64}},
    {"schedule": {"kind": "adacomm", "tau0": 16, "interval_s": 0.5}},
    {"schedule": {"kind": "adacomm", "tau0": 64, "interval_s": 0.5}},
    {"schedule": {"kind": "lupa-loss", "tau0": 4}},
    {"schedule": FIXED, "averaging": {"kind": "elastic"}},
    {"schedule": FIXED, "outer": {"kind": "slowmo", "beta": 0.2}},
    {"schedule": FIXED, "outer": {"kind": "block-momentum"}},
    {"schedule": FIXED, "compression": {"kind": "top-k", "ratio": 0.05}},
    {"schedule": FIXED, "placement": {"kind": "redundant", "copies": 2}},
)
RANKING: dict[str, Any] = {
    "base": {"task": {"name": "digits", "epochs": 10_000}, "workers": {"min": WORKERS, "max": WORKERS}},
    "settings": {"checkpoints.every_epochs": None},
    "space": {
        "algorithm": {"grid_search": list(METHODS)},
        "task.optimizer.lr": {"grid_search": [0.005, 0.02]},
    },
    "metric": "loss_at_budget",
    "budget": {"trials": 1, "training_s": 3.0},
}


def main() -> int:
    options = docstring_parser(__doc__)
    options.add_argument("what", choices=("ranking", "switch"))
    options.add_argument("--keep", type=Path, help="Where the sweeps' directories stay.")
    options.add_argument("--figure", type=Path, help="Where an SVG file goes.")
    given = options.parse_args()
    with kept_or_temporary(given.keep, "tuning") as place:
        found, good = (ranking if given.what == "ranking" else switch)(place)
        print(json.dumps(found, indent=1))
        if given.figure is not None:
            save(getattr(tuning_figures, given.what)(found), given.figure)
        return 0 if good else 1


def tried(sweep: Sweep, directory: Path) -> list[Trial]:
    """The sweep's real trials, run where they have not been, in the order of its points."""
    directory.mkdir(parents=True, exist_ok=True)
    found = run_trials(sweep, directory)
    if found.interrupted:
        raise KeyboardInterrupt
    write_results(directory, sweep, found.trials)
    return [next(trial for trial in found.trials if trial.point == point) for point in sweep.points or ()]


def figures(trials: Sequence[Trial], metric: str) -> list[float]:
    return [trial.figures.get(metric, math.nan) for trial in trials]


# Ranking.


def ranking(place: Path) -> tuple[dict[str, Any], bool]:
    """The rank correlation over all points: one that has no figure is a failure."""
    sweep = tuning.from_mapping(RANKING)
    met = met_by_a_run(sweep, place)
    real = figures(tried(sweep, place / "real"), sweep.metric)
    simulated = simulated_losses(sweep, place / "simulated", met)
    points = [
        {"point": point, "real": one, "simulated": other}
        for point, one, other in zip(sweep.points or (), real, simulated, strict=True)
    ]
    found = correlation(real, simulated)
    return {"trials": len(points), "spearman": found, "limit": LIMIT, "points": points}, found >= LIMIT


def met_by_a_run(sweep: Sweep, place: Path) -> Path:
    """The directory of a run that tells what the cluster is like."""
    if not is_finished(place / "met"):
        point = {**(sweep.points or [])[0], "algorithm": {"schedule": {"kind": "fixed", "tau": 1}}}
        LocalSGDTrainer.from_config(sweep.config(point, storage=str(place), name="met")).fit()
    return place / "met"


def simulated_losses(sweep: Sweep, directory: Path, met: Path) -> list[float]:
    trials = simulate_all(sweep, directory, load_cluster(met))
    write_results(directory, sweep, trials)
    return figures(trials, sweep.metric)


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's; NaN where a figure is missing."""
    return float(spearmanr(one, other).statistic)


# Switch.


def switch(place: Path) -> tuple[dict[str, Any], bool]:
    """The sweep's times, then those of its best point and of its best with the paper's rule, again."""
    seeds = f"space.seed={{grid_search: {list(SWEPT)}}}"
    sweep = tuning.load(SWITCH, ["checkpoints.every_epochs=null", f"space.{PERIOD}={{choice: [16]}}", seeds])
    trials = tried(sweep, place / "switch")
    times = figures(trials, sweep.metric)
    arms = {"best": fastest(trials, sweep), "first-decay": fastest(filter(by_the_rule, trials), sweep)}
    schedules = {name: schedule(sweep.config(arm.point)) for name, arm in arms.items()}
    schedules["stability"] = schedule(config.load(method="stability-switch"))
    again = {name: repeated(sweep, one, place / name) for name, one in schedules.items()}
    medians = {name: statistics.median(found) for name, found in again.items()}
    told = {
        "sweep": [{"point": one.point, sweep.metric: time_s} for one, time_s in zip(trials, times, strict=True)],
        "arms": {name: trial.point for name, trial in arms.items()},
        "again": again,
        "medians": medians,
    }
    return told, medians["best"] <= medians["first-decay"] < math.inf


def by_the_rule(trial: Trial) -> bool:
    return bool(trial.point["algorithm.schedule.when"] == {"kind": "first-decay"})


def fastest(trials: Iterable[Trial], sweep: Sweep) -> Trial:
    return ranked(list(trials), sweep.objective)[0]


def schedule(of: Config) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(of.to_yaml())["algorithm"]["schedule"]
    return found


def repeated(sweep: Sweep, schedule: Mapping[str, Any], directory: Path) -> list[float]:
    """Its times to the target, by seed."""
    space = {"seed": {"grid_search": list(SEEDS)}, "algorithm.schedule": {"grid_search": [dict(schedule)]}}
    again = tuning.from_mapping({**sweep.model_dump(), "space": space})
    return figures(tried(again, directory), sweep.metric)


if __name__ == "__main__":
    sys.exit(main())
