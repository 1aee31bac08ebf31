"""A run under a rain of faults: python benchmarks/soak.py --seconds 600

4 real workers on this machine, scikit-learn's digits 40 times over (so that an epoch has as many samples as one of
Fashion-MNIST), steps that take 10 ms at least; a random kill, stop, notice or NaN every 20 s on average. Says what
fired, and whether the run ended well, the ledger is exact, how much of the training time (without evaluations) was not
spent in rounds, and what is left behind: processes, actors, placement groups, shared memory, file descriptors and
threads of those who live on. Exit status 1 if anything does not hold, or if the time not spent in rounds is over 15 %,
or over the sum of what the faults that fired may cost.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from lib.arguments import docstring_parser
from lib.clusters import elastic, local_cluster
from lib.counted_digits import CountedDigits, steps_beside, steps_in_no_round
from lib.fault_runs import TAU, ends, left_behind, named, round_s, unsound
from lib.run_directories import kept_or_temporary
from ray.train import FailureConfig, RunConfig

from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer, RedundantChunks, Stop
from raysgd_local.faults.language import parse
from raysgd_local.run_files import reader
from raysgd_local.run_files.reader import Run
from raysgd_local.tasks.memory import InMemory

EVERY_S, WORKERS, MOST_IDLE = 20.0, 4, 0.15
JOIN_S = 1.0
"""What a replacement may cost when it enters."""
KINDS = ("kill:{}", "stop:{}", "stop:{}x1", "drain:{}", "nan:{}")


@dataclass(frozen=True, kw_only=True)
class ManyDigits(CountedDigits):
    step_s: float = 0.01

    def datasets(self) -> tuple[InMemory, InMemory]:
        train, test = super().datasets()
        return InMemory(*(tensor.repeat(40, *(1,) * (tensor.dim() - 1)) for tensor in train.tensors)), test


def schedule(seconds: float, draw: random.Random) -> str:
    """Faults at the moments of a Poisson process; drains by Ray need other nodes, so notices stand for them."""
    words, at_s = [], draw.expovariate(1 / EVERY_S)
    while at_s < seconds - 5:
        words.append(f"{draw.choice(KINDS).format(draw.randrange(WORKERS))}@{at_s:.3f}s")
        at_s += draw.expovariate(1 / EVERY_S)
    return "; ".join(words)


def bound_s(words: str, round_s: float) -> float:
    """What a fault may cost: the stall's limit, and that of the replacement's entering."""
    (fault,) = parse(words)
    hang_s = max(2.0, 3 * round_s)
    stop_s = hang_s + JOIN_S if fault.amount > hang_s else fault.amount
    return {"kill": 2.0 + JOIN_S, "stop": stop_s, "drain": JOIN_S, "nan": 0.0}[fault.kind]


def times(run: Run) -> dict[str, Any]:
    """What fired, and the part of the training time that no round accounts for."""
    fired = [e["fault"] for e in named(run, "chaos_fired")]
    took_s = round_s(run.rounds)
    elapsed_s = float(run.rounds["elapsed_s"].iloc[-1])
    return {
        "fired": Counter(words.partition(":")[0] + "x1" * ("x1@" in words) for words in fired),
        "rounds": len(run.rounds),
        "elapsed_s": round(elapsed_s, 1),
        "not_in_rounds_s": round(elapsed_s - float(took_s.sum()), 2),
        "not_in_rounds": round(1 - float(took_s.sum()) / elapsed_s, 4),
        "bounds_s": round(sum(bound_s(words, float(took_s.median())) for words in fired), 2),
        "stall_s_max": run.result["stall_s_max"],
    }


def problems(run: Run) -> list[str]:
    """What does not hold of the run."""
    fired = named(run, "chaos_fired")
    struck = {e["worker"] for e in fired if ends(e["fault"])}
    gone = {e["worker"] for name in ("worker_lost", "worker_left") for e in named(run, name)}
    steps = steps_in_no_round(run)
    said = {
        f"did not fire: {[e['fault'] for e in named(run, 'chaos_unfired')]}": not named(run, "chaos_unfired"),
        f"gone are {sorted(gone)}, struck were {sorted(struck)}": gone == struck,
        f"{steps} steps are in no round": 0 <= steps <= (TAU + 1) * len(struck),
    }
    return [*unsound(run), *(what for what, holds in said.items() if not holds)]


class Meter:
    """What this machine's processes of ours hold, looked at every 2 s while the run goes on."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self.seen: dict[str, list[tuple[int, int]]] = {}
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(2.0):
            for process in [psutil.Process(), *ours()]:
                try:
                    name = f"{script(process)} {process.pid}"
                    self.seen.setdefault(name, []).append((process.num_fds(), process.num_threads()))
                except psutil.Error:
                    continue

    def growth(self) -> dict[str, tuple[float, float]]:
        """File descriptors and threads, the last fifth's typical number less the second fifth's, of each process that
        was there for most of the time.
        """
        self._ended.set()
        self._thread.join()
        longest = max(map(len, self.seen.values()))
        return {name: _grown(seen) for name, seen in self.seen.items() if len(seen) > longest / 2}


def script(process: psutil.Process) -> str:
    """What a process runs: of an interpreter the script."""
    scripts = [word for word in process.cmdline() if word.endswith(".py")]
    return Path(scripts[0]).name if scripts else process.name()


def _grown(seen: list[tuple[int, int]]) -> tuple[float, float]:
    fifth = len(seen) // 5
    before, after = (list(zip(*part, strict=True)) for part in (seen[fifth : 2 * fifth], seen[-fifth:]))
    fds, threads = (statistics.median(b) - statistics.median(a) for a, b in zip(before, after, strict=True))
    return fds, threads


def ours() -> list[psutil.Process]:
    """Processes that this one started, and those that they started."""
    found: list[psutil.Process] = psutil.Process().children(recursive=True)
    return found


def actors() -> list[Any]:
    known: dict[str, dict[str, Any]] = ray._private.state.actors()
    return [actor for actor in known.values() if actor["State"] != "DEAD"]


def still(look: Callable[[], list[Any]], limit_s: float = 10.0) -> list[Any]:
    """What `look` finds even after a while."""
    end = time.monotonic() + limit_s
    while (found := look()) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def leaks(shared: set[str]) -> dict[str, Any]:
    """What is still there after a run, in the cluster and on the machine."""
    groups = [g for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"]
    names = ("ray::Worker", "ray::Driver")
    left = {
        "resources": left_behind(),
        "actors": actors(),
        "placement groups": groups,
        "processes": still(lambda: [p.pid for p in ours() if p.name().startswith(names)]),
    }
    ray.shutdown()
    left["processes after Ray's end"] = still(lambda: [p.name() for p in ours()])
    left["shared memory"] = sorted(set(os.listdir("/dev/shm")) - shared)
    return {what: found for what, found in left.items() if found}


def train(seconds: float, chaos: str, folder: Path) -> Run:
    result = LocalSGDTrainer(
        ManyDigits(model="mlp", epochs=1_000_000, steps=str(steps_beside(folder, "soak"))),
        algorithm=Algorithm(schedule=FixedPeriod(TAU), placement=RedundantChunks(2)),
        scaling_config=elastic(WORKERS),
        run_config=RunConfig(name="soak", storage_path=str(folder), failure_config=FailureConfig(max_failures=-1)),
        stop=Stop(seconds=seconds),
        chaos=chaos,
    ).fit()
    return reader.load(result.path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = docstring_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calm", action="store_true", help="without faults, to compare with")
    parser.add_argument("--keep", type=Path, help="where the run directory stays")
    options = parser.parse_args(arguments)
    chaos = "" if options.calm else schedule(options.seconds, random.Random(options.seed))
    shared = set(os.listdir("/dev/shm"))
    with local_cluster(WORKERS), kept_or_temporary(options.keep, "soak") as folder:
        meter = Meter()
        run = train(options.seconds, chaos, folder)
        summary = {"grown": meter.growth(), "left": leaks(shared), "wrong": problems(run), **times(run)}
    print(json.dumps(summary))
    limit_s = min(summary["bounds_s"], MOST_IDLE * summary["elapsed_s"])
    idle = options.calm or summary["not_in_rounds_s"] <= limit_s
    return 0 if idle and not summary["wrong"] and not summary["left"] else 1


if __name__ == "__main__":
    sys.exit(main())
