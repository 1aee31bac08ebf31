"""What a fault costs, with real processes and signals: python benchmarks/faults.py --fault kill --repeats 20

Runs scikit-learn's digits on this machine with faults at random moments, several a run, and checks after each run:
every fault fired; nobody is gone but those whom a fault was to cost; the ledger is exact; survivors' steps are all in
some round; nothing is left behind. The stall is the time from a fault to the next committed round as the driver hears
of it, less that round's own computing time. Exit status 1 if anything does not hold.

What needs a moment that the run itself brings about is in fault_moments.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig

from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer, RedundantChunks, Stop, get_context
from raysgd_local.faults.language import parse
from raysgd_local.run_files import reader
from raysgd_local.run_files.reader import Run
from raysgd_local.tasks import Digits

FIRST_S, GAP_S = 4.0, 11.0
"""When the first fault comes, and how long after one the next: a replacement takes so long to start here."""

SOON_S = 0.2
"""A second fault comes at any moment of this time after the first."""

SLOW_S, SHARED_S = 7.5, 4.5
"""How long a slow worker is slow, and after how long steps are shared unequally: two windows of `Balance`, and some."""

TAU = 8


@dataclass(frozen=True)
class Kind:
    """`words` are put together with two ranks `a` and `b`, a time `t`, `soon` and `later`; `breaks` says
    whether it ends a view, so that there is a stall to measure. A fault costs at most `steps` steps, those that the
    struck worker took since its last round. A step, on `batch_size` samples, takes `step_s` at least.
    """

    words: str
    breaks: bool = True
    steps: int = 0
    step_s: float = 0.0
    batch_size: int = 16


KINDS = {
    "kill": Kind("kill:{a}@{t}s", steps=TAU + 1),
    "two": Kind("kill:{a}@{t}s; kill:{b}@{t}s", steps=TAU + 1),
    "all-but-one": Kind("{others}", steps=TAU + 1),
    "joiner": Kind("kill:{a}@{t}s; kill:j0@{soon}s", steps=TAU + 1),
    "driver": Kind("driver@{t}s"),
    "damage": Kind("damage@{t}s; driver@{soon}s"),
    "stop": Kind("stop:{a}@{t}s", steps=TAU + 1),
    "pause": Kind("stop:{a}x0.5@{t}s", breaks=False),
    "drain": Kind("drain:{a}@{t}s"),
    "sigterm": Kind("sigterm:{a}@{t}s"),
    "nan": Kind("nan:{a}@{t}s", breaks=False),
    "cut": Kind("cut:{a}@{t}s"),
    "slow": Kind("slow:{a}x2@{t}s; slow:{a}x1@{later}s", breaks=False, step_s=0.01, batch_size=4),
    "error": Kind("error:{a}@{t}s", steps=TAU + 1),
}


@dataclass(frozen=True, kw_only=True)
class CountedDigits(Digits):
    """Every process leaves a byte a step in `steps`, before the step is taken; training ends when `enough` is there."""

    steps: str
    step_s: float = 0.0

    def accumulate_gradients(self, model: Any, batch: Any) -> Any:
        if (Path(self.steps) / "enough").exists():
            get_context().stop()
        with (Path(self.steps) / str(os.getpid())).open("ab", buffering=0) as file:
            file.write(b".")
        time.sleep(self.step_s)
        return super().accumulate_gradients(model, batch)


def schedule(kind: Kind, workers: int, count: int, gap_s: float, draw: random.Random) -> str:
    words = []
    for index in range(count):
        a, b = draw.sample(range(workers), 2)
        at_s = FIRST_S + gap_s * index + draw.random()
        others = "; ".join(f"kill:{rank}@{at_s:.3f}s" for rank in range(workers) if rank != a)
        soon_s = at_s + SOON_S * draw.random()
        times = {"t": f"{at_s:.3f}", "soon": f"{soon_s:.3f}", "later": f"{at_s + SLOW_S:.3f}"}
        words.append(kind.words.format(a=a, b=b, others=others, **times))
    return "; ".join(words)


def train(kind: Kind, workers: int, count: int, gap_s: float, draw: random.Random, storage: str, name: str) -> Run:
    steps = Path(storage) / f"{name}-steps"
    steps.mkdir()
    result = LocalSGDTrainer(
        CountedDigits(
            model="mlp", epochs=100_000, batch_size=kind.batch_size, steps=str(steps), step_s=kind.step_s
        ),
        algorithm=Algorithm(schedule=FixedPeriod(TAU), placement=RedundantChunks(2)),
        scaling_config=ScalingConfig(num_workers=(1, workers)),
        run_config=RunConfig(name=name, storage_path=storage, failure_config=FailureConfig(max_failures=-1)),
        stop=Stop(seconds=FIRST_S + gap_s * count),
        chaos=schedule(kind, workers, count, gap_s, draw),
    ).fit()
    return reader.load(result.path)


def named(run: Run, event: str) -> list[dict[str, Any]]:
    return [e for e in run.events if e["event"] == event]


@dataclass(frozen=True)
class Strike:
    """A fault's moment (Unix seconds) and the worker that it happened to; the driver where that is empty."""

    time_s: float
    worker: str


def strikes(run: Run) -> list[Strike]:
    return [Strike(e["time_s"], e["worker"]) for e in named(run, "chaos_fired")]


def stalls(run: Run, strikes: Sequence[Strike]) -> list[float]:
    """For each fault of a member the time to the first committed round of a later view, less that round's computing.

    Of faults that one view answers the first counts.
    """
    computing = run.rounds.groupby("view")["compute_s"].first()
    joined = {e["worker"]: e["time_s"] for e in named(run, "worker_joined")}
    found: dict[float, float] = {}
    for strike in strikes:
        if joined.get(strike.worker, math.inf) < strike.time_s or not strike.worker:
            view = next((e for e in named(run, "view_formed") if e["time_s"] > strike.time_s), None)
            if view is not None:
                stall_s = view["time_s"] - strike.time_s - float(computing.get(view["view"], 0.0))
                found.setdefault(view["time_s"], stall_s)  # a restarted driver counts views anew
    return list(found.values())


def joins(run: Run) -> list[float]:
    """For each view with more workers than the one before: the training time that its first round does not explain."""
    rows = run.rounds.to_dict("records")
    return [
        row["elapsed_s"] - before["elapsed_s"] - row["compute_s"] - row["wait_s"] - row["sync_s"]
        for before, row in itertools.pairwise(rows)
        if row["workers"] > before["workers"] and row["incarnation"] == before["incarnation"]
    ]


def ends(words: str) -> bool:
    """Whether the worker that this happens to is gone after it."""
    (fault,) = parse(words)
    return fault.kind in ("kill", "drain", "sigterm", "error") or (fault.kind == "stop" and fault.amount > 2)


def steps_in_no_round(run: Run) -> int:
    """Steps that were begun and that no round has."""
    taken = sum(path.stat().st_size for path in run.path.with_name(f"{run.name}-steps").iterdir())
    return taken - int(run.rounds["steps"].sum())


def slowed(run: Run) -> list[float]:
    """For each worker that was slow for a while how much longer rounds took once steps were shared unequally."""
    rows = run.rounds[run.rounds["samples"] > 0].set_index("elapsed_s")
    round_s = rows[["compute_s", "sync_s", "wait_s"]].sum(axis=1)
    moments = [parse(e["fault"])[0].when.seconds or 0.0 for e in named(run, "chaos_fired")]
    return [
        float(round_s[on_s + SHARED_S : off_s].median() / round_s[on_s - 3 : on_s].median())
        for on_s, off_s in zip(moments[::2], moments[1::2], strict=True)
    ]


def unsound(run: Run) -> list[str]:
    """What no fault excuses."""
    result = run.result
    joined = [e["pid"] for e in named(run, "worker_joined")]
    said = {
        "a process joined twice": len(joined) == len(set(joined)),
        f"{result['samples_lost']} samples lost": result["samples_lost"] == 0,
        f"{result['samples_repeated']} samples repeated": result["samples_repeated"] == 0,
        f"status {result['status']}": result["status"] == "finished",
        "rounds are missing": run.rounds["round"].tolist() == list(range(1, len(run.rounds) + 1)),
    }
    return [what for what, holds in said.items() if not holds]


def problems(run: Run, kind: Kind, count: int) -> list[str]:
    """What does not hold of the run."""
    fired, unfired = named(run, "chaos_fired"), named(run, "chaos_unfired")
    ended = {e["worker"] for e in fired if ends(e["fault"])}
    gone = {e["worker"] for name in ("worker_lost", "worker_left") for e in named(run, name)}
    drivers = sum(e["fault"].startswith("driver") for e in fired)
    restarts = run.result["driver_restarts"]
    steps = 0 if drivers else steps_in_no_round(run)
    said = {
        f"did not fire: {[e['fault'] for e in unfired]}": not unfired,
        f"{len(fired)} faults fired": len(fired) >= count,
        f"gone are {sorted(gone)}, struck were {sorted(ended)}": gone == ended or drivers > 0,
        f"the driver died {restarts} times": restarts == drivers,
        f"{steps} steps are in no round": 0 <= steps <= kind.steps * len(fired),
    }
    return [*unsound(run), *(what for what, holds in said.items() if not holds)]


def left_behind(limit_s: float = 30.0) -> str:
    """What a run left in the cluster, after some time to go."""
    end = time.monotonic() + limit_s
    while ray.available_resources().get("CPU") != ray.cluster_resources().get("CPU"):
        if time.monotonic() > end:
            return f"{ray.available_resources()} of {ray.cluster_resources()} are free"
        time.sleep(0.1)
    return ""


@dataclass
class Tally:
    """What runs with faults of one kind came to."""

    kind: Kind
    stalls: list[float] = field(default_factory=list)
    joins: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, run: Run, count: int) -> None:
        self.wrong += [f"{run.name}: {what}" for what in problems(run, self.kind, count)]
        self.wrong += [f"{run.name}: left behind: {left}"] if (left := left_behind()) else []
        self.stalls += stalls(run, strikes(run)) if self.kind.breaks else []
        self.joins += joins(run)
        if self.kind is KINDS["slow"]:
            self.rounds += slowed(run)

    def summary(self) -> dict[str, Any]:
        told: dict[str, Any] = {"wrong": self.wrong}
        for name, values in (("stall_s", self.stalls), ("join_s", self.joins), ("round_ratio", self.rounds)):
            if values:
                figures = {"n": len(values), "median": statistics.median(values), "max": max(values)}
                told[name] = {key: round(value, 3) for key, value in figures.items()}
        return told


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
    tally, draw = Tally(KINDS[options.fault]), random.Random(options.seed)
    ray.init(
        "local", num_cpus=options.workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    with tempfile.TemporaryDirectory(prefix="raysgd-faults-") as scratch:
        storage, done = str(options.keep or scratch), 0
        Path(storage).mkdir(exist_ok=True)
        while done < options.repeats:
            count = min(options.per_run, options.repeats - done)
            name = f"{options.fault}-{done}"
            run = train(tally.kind, options.workers, count, options.gap_s, draw, storage, name)
            tally.add(run, count)
            done += count
    ray.shutdown()
    about = {"fault": options.fault, "workers": options.workers, "repeats": done}
    print(json.dumps({**about, **tally.summary()}))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
