"""What a fault costs, with real processes and signals: python benchmarks/faults.py --fault kill --repeats 20

Runs scikit-learn's digits on this machine with faults at random moments, several a run, and checks after each run:
every fault fired; nobody was lost but those that the fault was to cost; the ledger is exact; no process, actor or
resource is left behind. The stall is the time from the fault to the next committed round as the driver hears of it,
less that round's own computing time. Exit status 1 if anything does not hold.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig

from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer, RedundantChunks, Stop, run_directory
from raysgd_local.run_directory import Run
from raysgd_local.tasks import Digits

FIRST_S, GAP_S = 4.0, 11.0
"""When the first fault comes, and how long after one the next: a replacement takes so long to start here."""

SOON_S = 0.2
"""A second fault comes at any moment of the time that forming a view takes."""


@dataclass(frozen=True)
class Kind:
    """`words` are put together with two ranks `a` and `b`, a time `t`, and `soon`, a moment later; `costs` says how
    many workers one of them loses or sends away; `breaks` whether it ends a view, so that there is a stall to measure.
    """

    words: str
    costs: int
    breaks: bool = True


KINDS = {
    "kill": Kind("kill:{a}@{t}s", 1),
    "two": Kind("kill:{a}@{t}s; kill:{b}@{t}s", 2),
    "all-but-one": Kind("{others}", 3),
    "forming": Kind("kill:{a}@{t}s; kill:{b}@{soon}s", 2),
    "joiner": Kind("kill:{a}@{t}s; kill:j0@{soon}s", 2),
    "driver": Kind("driver@{t}s", 0),
    "damage": Kind("damage@{t}s; driver@{soon}s", 0),
    "stop": Kind("stop:{a}@{t}s", 1),
    "pause": Kind("stop:{a}x0.5@{t}s", 0, breaks=False),
    "drain": Kind("drain:{a}@{t}s", 1),
    "nan": Kind("nan:{a}@{t}s", 0, breaks=False),
    "cut": Kind("cut:{a}@{t}s", 0),
    "slow": Kind("slow:{a}x2@{t}s", 0, breaks=False),
    "error": Kind("error:{a}@{t}s", 1),
}


def schedule(kind: Kind, workers: int, count: int, gap_s: float, draw: random.Random) -> str:
    words = []
    for index in range(count):
        a, b = draw.sample(range(workers), 2)
        at_s = FIRST_S + gap_s * index + draw.random()
        others = "; ".join(f"kill:{rank}@{at_s:.3f}s" for rank in range(workers) if rank != a)
        soon_s = at_s + SOON_S * draw.random()
        words.append(kind.words.format(a=a, b=b, t=f"{at_s:.3f}", soon=f"{soon_s:.3f}", others=others))
    return "; ".join(words)


def train(kind: Kind, workers: int, count: int, gap_s: float, draw: random.Random, storage: str, name: str) -> Run:
    result = LocalSGDTrainer(
        Digits(model="mlp", epochs=100_000),
        algorithm=Algorithm(schedule=FixedPeriod(8), placement=RedundantChunks(2)),
        scaling_config=ScalingConfig(num_workers=(1, workers)),
        run_config=RunConfig(name=name, storage_path=storage, failure_config=FailureConfig(max_failures=-1)),
        stop=Stop(seconds=FIRST_S + gap_s * count),
        chaos=schedule(kind, workers, count, gap_s, draw),
    ).fit()
    return run_directory.load(result.path)


def stalls(run: Run) -> list[float]:
    """For each fault the time to the first committed round of a later view, less that round's computing."""
    computing = run.rounds.groupby("view")["compute_s"].first()
    found, seen = [], set()
    for fault in (e for e in run.events if e["event"] == "chaos_fired"):
        formed = next(
            (e for e in run.events if e["event"] == "view_formed" and e["time_s"] > fault["time_s"]), None
        )
        if formed is not None and formed["view"] not in seen:
            seen.add(formed["view"])
            found.append(formed["time_s"] - fault["time_s"] - float(computing.get(formed["view"], 0.0)))
    return found


def joins(run: Run) -> list[float]:
    """For each view with more workers than the one before: the training time that its first round does not explain."""
    rows = run.rounds.to_dict("records")
    return [
        row["elapsed_s"] - before["elapsed_s"] - row["compute_s"] - row["wait_s"] - row["sync_s"]
        for before, row in itertools.pairwise(rows)
        if row["workers"] > before["workers"] and row["incarnation"] == before["incarnation"]
    ]


def problems(run: Run, kind: Kind, count: int) -> list[str]:
    """What does not hold of the run."""
    events, result = run.events, run.result
    fired = [e for e in events if e["event"] == "chaos_fired"]
    gone = [e["worker"] for e in events if e["event"] in ("worker_lost", "worker_left")]
    joined = [e["pid"] for e in events if e["event"] == "worker_joined"]
    said = {
        f"{len(fired)} faults fired": len(fired) == count * max(kind.costs, 1 + kind.words.count(";")),
        f"{len(gone)} workers gone": len(gone) == count * kind.costs,
        "others than the struck are gone": set(gone) <= {e["worker"] for e in fired},
        "a process joined twice": len(joined) == len(set(joined)),
        f"{result['samples_lost']} samples lost": result["samples_lost"] == 0,
        f"{result['samples_repeated']} samples repeated": result["samples_repeated"] == 0,
        f"status {result['status']}": result["status"] == "finished",
        "rounds are missing": run.rounds["round"].tolist() == list(range(1, len(run.rounds) + 1)),
    }
    return [what for what, holds in said.items() if not holds]


def left_behind(limit_s: float = 30.0) -> str:
    """What a run left in the cluster, after some time to go."""
    end = time.monotonic() + limit_s
    while ray.available_resources().get("CPU") != ray.cluster_resources().get("CPU"):
        if time.monotonic() > end:
            return f"{ray.available_resources()} of {ray.cluster_resources()} are free"
        time.sleep(0.1)
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", choices=KINDS, default="kill")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--per-run", type=int, default=5, help="faults in one run")
    parser.add_argument("--gap-s", type=float, default=GAP_S, help="seconds from one to the next")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where run directories stay")
    options = parser.parse_args(arguments)
    kind, draw = KINDS[options.fault], random.Random(options.seed)
    ray.init(
        "local", num_cpus=options.workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    measured: list[float] = []
    entered: list[float] = []
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="raysgd-faults-") as scratch:
        storage, done = str(options.keep or scratch), 0
        while done < options.repeats:
            count = min(options.per_run, options.repeats - done)
            run = train(kind, options.workers, count, options.gap_s, draw, storage, f"{options.fault}-{done}")
            done += count
            wrong += [f"{run.name}: {what}" for what in problems(run, kind, count)]
            wrong += [f"{run.name}: left behind: {left}"] if (left := left_behind()) else []
            measured += stalls(run) if kind.breaks else []
            entered += joins(run)
    ray.shutdown()
    summary = {"fault": options.fault, "workers": options.workers, "repeats": done, "wrong": wrong}
    if measured:
        summary |= {"stalls": len(measured), "median_s": round(statistics.median(measured), 3)}
        summary |= {"max_s": round(max(measured), 3)}
    if entered:
        summary |= {"joins": len(entered), "join_median_s": round(statistics.median(entered), 3)}
        summary |= {"join_max_s": round(max(entered), 3)}
    print(json.dumps(summary))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
