"""What a fault costs, with real processes and signals: python benchmarks/faults.py --fault kill --repeats 20

Runs scikit-learn's digits on this machine with faults at random moments, several a run, and checks after each run:
every fault fired; nobody is gone but those whom a fault was to cost; the ledger is exact; survivors' steps are all in
some round; nothing is left behind. The stall is the time from a fault to the next committed round as the driver hears
of it, less that round's own computing time. Exit status 1 if anything does not hold.

What needs a moment that the run itself brings about is in fault_moments.py.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.arguments import docstring_parser
from lib.clusters import elastic, local_cluster
from lib.counted_digits import CountedDigits, steps_beside, steps_in_no_round
from lib.fault_runs import TAU, ends, joins, left_behind, named, round_s, stalls, strikes, summary, unsound
from lib.run_directories import kept_or_temporary
from ray.train import FailureConfig, RunConfig

from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer, RedundantChunks, Stop
from raysgd_local.faults.language import parse
from raysgd_local.run_files import reader
from raysgd_local.run_files.reader import Run

FIRST_S, GAP_S = 4.0, 11.0
"""When the first fault comes, and how long after one the next: a replacement takes so long to start here."""

SOON_S = 0.2
"""A second fault comes at any moment of this time after the first."""

SLOW_S, SHARED_S = 7.5, 4.5
"""How long a slow worker is slow, and after how long steps are shared unequally: two windows of `Balance`, and some."""


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


def train(
    kind: Kind, workers: int, count: int, gap_s: float, draw: random.Random, storage: Path, name: str
) -> Run:
    result = LocalSGDTrainer(
        CountedDigits(
            model="mlp",
            epochs=100_000,
            batch_size=kind.batch_size,
            steps=str(steps_beside(storage, name)),
            step_s=kind.step_s,
        ),
        algorithm=Algorithm(schedule=FixedPeriod(TAU), placement=RedundantChunks(2)),
        scaling_config=elastic(workers),
        run_config=RunConfig(name=name, storage_path=str(storage), failure_config=FailureConfig(max_failures=-1)),
        stop=Stop(seconds=FIRST_S + gap_s * count),
        chaos=schedule(kind, workers, count, gap_s, draw),
    ).fit()
    return reader.load(result.path)


def slowed(run: Run) -> list[float]:
    """For each worker that was slow for a while how much longer rounds took once steps were shared unequally."""
    rows = run.rounds[run.rounds["samples"] > 0].set_index("elapsed_s")
    took_s = round_s(rows)
    moments = [parse(e["fault"])[0].when.seconds or 0.0 for e in named(run, "chaos_fired")]
    return [
        float(took_s[on_s + SHARED_S : off_s].median() / took_s[on_s - 3 : on_s].median())
        for on_s, off_s in zip(moments[::2], moments[1::2], strict=True)
    ]


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
                told[name] = summary(values)
        return told


def main(arguments: Sequence[str] | None = None) -> int:
    parser = docstring_parser(__doc__)
    parser.add_argument("--fault", choices=KINDS, default="kill")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--per-run", type=int, default=5, help="faults in one run")
    parser.add_argument("--gap-s", type=float, default=GAP_S, help="seconds from one to the next")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where run directories stay")
    options = parser.parse_args(arguments)
    tally, draw = Tally(KINDS[options.fault]), random.Random(options.seed)
    with local_cluster(options.workers), kept_or_temporary(options.keep, "faults") as folder:
        done = 0
        while done < options.repeats:
            count = min(options.per_run, options.repeats - done)
            name = f"{options.fault}-{done}"
            run = train(tally.kind, options.workers, count, options.gap_s, draw, folder, name)
            tally.add(run, count)
            done += count
    about = {"fault": options.fault, "workers": options.workers, "repeats": done}
    print(json.dumps({**about, **tally.summary()}))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
