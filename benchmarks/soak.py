"""A run under a rain of faults: python benchmarks/soak.py --seconds 600

4 real workers on this machine, scikit-learn's digits; a random kill, stop, notice or NaN every 20 s on average. Says
what fired, and whether the run ended well, the ledger is exact, nothing is left behind, and how much of the training
time (without evaluations) was not spent in rounds. Exit status 1 if anything does not hold, or if that is over 15 %.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence

import psutil
import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig

from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer, RedundantChunks, Stop, run_directory
from raysgd_local.run_directory import Run
from raysgd_local.tasks import Digits

EVERY_S, WORKERS, MOST_IDLE = 20.0, 4, 0.15


def schedule(seconds: float, draw: random.Random) -> str:
    """Faults at the moments of a Poisson process; drains by Ray need other nodes, so notices stand for them."""
    words, at_s = [], draw.expovariate(1 / EVERY_S)
    while at_s < seconds - 5:
        what = draw.choice(("kill:{}", "stop:{}", "stop:{}x1", "drain:{}", "nan:{}"))
        words.append(f"{what.format(draw.randrange(WORKERS))}@{at_s:.3f}s")
        at_s += draw.expovariate(1 / EVERY_S)
    return "; ".join(words)


def idle(run: Run) -> float:
    """The part of the training time that no round accounts for."""
    rounds = run.rounds[["compute_s", "sync_s", "wait_s"]].sum().sum()
    return 1.0 - float(rounds) / float(run.rounds["elapsed_s"].iloc[-1])


def problems(run: Run, processes: set[int]) -> list[str]:
    events, result = run.events, run.result
    struck = {e["worker"] for e in events if e["event"] == "chaos_fired"}
    lost = {e["worker"] for e in events if e["event"] == "worker_lost"}
    said = {
        f"status {result['status']}": result["status"] == "finished",
        f"{result['samples_lost']} lost": result["samples_lost"] == 0,
        f"{result['samples_repeated']} repeated": result["samples_repeated"] == 0,
        f"lost without a fault: {sorted(lost - struck)}": lost <= struck,
        "rounds are missing": run.rounds["round"].tolist() == list(range(1, len(run.rounds) + 1)),
        f"processes are left: {left}" if (left := ours() - processes) else "": not left,
    }
    return [what for what, holds in said.items() if not holds]


def ours() -> set[int]:
    """Processes of this package's actors on this machine."""
    names = ("ray::Worker", "ray::Driver")
    return {p.pid for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[0].startswith(names)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    chaos, before = schedule(options.seconds, random.Random(options.seed)), ours()
    with tempfile.TemporaryDirectory(prefix="raysgd-soak-") as storage:
        result = LocalSGDTrainer(
            Digits(model="mlp", epochs=1_000_000),
            algorithm=Algorithm(schedule=FixedPeriod(8), placement=RedundantChunks(2)),
            scaling_config=ScalingConfig(num_workers=(1, WORKERS)),
            run_config=RunConfig(name="soak", storage_path=storage, failure_config=FailureConfig(max_failures=-1)),
            stop=Stop(seconds=options.seconds),
            chaos=chaos,
        ).fit()
        ray.shutdown()
        run = run_directory.load(result.path)
    fired = Counter(e["fault"].partition(":")[0] for e in run.events if e["event"] == "chaos_fired")
    wrong, part = problems(run, before), idle(run)
    summary = {"fired": dict(fired), "wrong": wrong, "not_in_rounds": round(part, 3)}
    print(json.dumps({**summary, "rounds": len(run.rounds), "stall_s_max": run.result["stall_s_max"]}))
    return 1 if wrong or part > MOST_IDLE else 0


if __name__ == "__main__":
    sys.exit(main())
