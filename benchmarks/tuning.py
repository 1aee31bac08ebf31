"""What sweeps are worth: does the simulator rank configurations as real runs do, does a switch point need a search?

    python benchmarks/tuning.py ranking [--keep DIR]   # 24 configurations, real and simulated: some minutes
    python benchmarks/tuning.py switch [--keep DIR]    # tune_configs/post-local-switch.yaml: an hour, with RAYSGD_DATA

`ranking` tries each of 24 points on digits twice: on Ray on this machine, with as many workers as it has cores, and on
the simulator, which is told what was measured beforehand with one worker alone: step times, and what a round costs. The
ranks by `loss_at_budget` have to correlate by at least 0.7 (Spearman). `switch` compares a grid's best switch point
with the paper's rule, the first decay of the learning rate; the best has to be no later at the target.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from raysgd_local import tuning
from raysgd_local.config import Config
from raysgd_local.planning.workload import measure
from raysgd_local.simulation.cluster_model import ClusterModel
from raysgd_local.simulation.step_times import Samples
from raysgd_local.tuning.command import run_trials
from raysgd_local.tuning.results import Trial, write_results
from raysgd_local.tuning.simulated import simulate_all

LIMIT = 0.7
WORKERS = os.cpu_count() or 1
SWITCH = Path(__file__).parents[1] / "tune_configs" / "post-local-switch.yaml"
RANKING: dict[str, Any] = {
    "base": {"task": {"name": "digits", "epochs": 10_000}, "workers": {"min": WORKERS, "max": WORKERS}},
    "settings": {"checkpoints.every_epochs": 10_000},
    "space": {
        "algorithm.schedule": {
            "grid_search": [
                {"kind": "every-step"},
                *({"kind": "fixed", "tau": tau} for tau in (4, 16, 64)),
                *({"kind": "adacomm", "tau0": tau0, "interval_s": 0.5} for tau0 in (8, 32)),
            ]
        },
        "task.optimizer.lr": {"grid_search": [0.005, 0.02]},
        "task.batch_size": {"grid_search": [8, 32]},
    },
    "metric": "loss_at_budget",
    "budget": {"trials": 1, "training_s": 3.0},
}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("ranking", "switch"))
    options.add_argument("--keep", type=Path, help="Where the sweeps' directories stay.")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = (given.keep or Path(scratch)).absolute()
        found, good = (ranking if given.what == "ranking" else switch)(place)
        print(json.dumps(found, indent=1))
        return 0 if good else 1


def ranking(place: Path) -> tuple[dict[str, Any], bool]:
    """The rank correlation over all points that both have a figure for."""
    sweep = tuning.from_mapping(RANKING)
    cluster = measured(sweep.first)
    place.mkdir(parents=True, exist_ok=True)
    simulated = simulate_all(sweep, place / "simulated", cluster)
    real = in_order(run_trials(sweep, place / "real").trials, sweep)
    pairs = [(figure(one), figure(other)) for one, other in zip(real, simulated, strict=True)]
    for directory, trials in (("simulated", simulated), ("real", real)):
        write_results(place / directory, sweep, trials)
    finite = [pair for pair in pairs if all(map(math.isfinite, pair))]
    spearman = float(spearmanr(*zip(*finite, strict=True)).statistic)
    points = [{"point": trial.point, "real": r, "simulated": s} for trial, (r, s) in zip(real, pairs, strict=True)]
    return {"trials": len(finite), "spearman": spearman, "limit": LIMIT, "points": points}, spearman >= LIMIT


def measured(config: Config) -> ClusterModel:
    """This machine, as one worker alone finds it; averagings in shared memory take no time on a link."""
    workload = measure(config.task)
    times = Samples(times_s=tuple(workload.step_s))
    return ClusterModel(steps=times, latency_ms=0.1, round_ms=1000 * workload.round_s, warmup_s=workload.warmup_s)


def in_order(trials: list[Trial], sweep: tuning.Sweep) -> list[Trial]:
    return [next(trial for trial in trials if trial.point == point) for point in sweep.points or ()]


def figure(trial: Trial) -> float:
    return trial.figures.get("loss_at_budget", math.nan)


def switch(place: Path) -> tuple[dict[str, Any], bool]:
    """The best time to target of all, and of the paper's rule."""
    sweep = tuning.load(SWITCH)
    place.mkdir(parents=True, exist_ok=True)
    trials = run_trials(sweep, place / "switch").trials
    write_results(place / "switch", sweep, trials)
    times = [(trial.figures.get("time_to_target_s", math.inf), trial.point) for trial in trials]
    rule = min(time_s for time_s, point in times if point["algorithm.schedule.when"] == {"kind": "first-decay"})
    best, point = min(times, key=lambda one: one[0])
    return {"best_s": best, "best": point, "first_decay_s": rule, "all": times}, best <= rule < math.inf


if __name__ == "__main__":
    sys.exit(main())
