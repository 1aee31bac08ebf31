"""Faults that a schedule can't time or bring about: python benchmarks/fault_moments.py --fault transfer --repeats 20

A run of real workers on this machine, to which something is done again and again, from outside: a kill at a moment
that the run's own events give away, nodes that die and come, a disk that is full or gone. What is checked and measured
is what faults.py tells.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from lib.arguments import docstring_parser
from lib.clusters import Nodes, elastic, local_cluster
from lib.counted_digits import CountedDigits, steps_beside, steps_in_no_round
from lib.fault_runs import TAU, Strike, joins, left_behind, named, round_s, stalls, summary, unsound
from lib.run_directories import kept_or_temporary
from ray.train import FailureConfig, RunConfig
from torch import nn

from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer, RedundantChunks
from raysgd_local.run_files import reader
from raysgd_local.run_files.reader import Run
from raysgd_local.tasks import Optimizer

LIMIT_S = 120.0
TUNED = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@dataclass(frozen=True, kw_only=True)
class WideDigits(CountedDigits):
    """5 MB of parameters, so that giving state to a joiner takes a while, and a rate that so wide a model bears."""

    optimizer: Optimizer = Optimizer(lr=0.005, momentum=0.9, weight_decay=1e-4)

    def make_model(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16384), nn.ReLU(), nn.Linear(16384, 10))


class Running:
    """A run in a thread, seen through its events."""

    def __init__(self, storage: Path, workers: int, wide: bool) -> None:
        self.path, self.steps = storage / "run", steps_beside(storage, "run")
        self.strikes: list[Strike] = []
        task = WideDigits if wide else CountedDigits
        self._trainer = LocalSGDTrainer(
            task(model="mlp", epochs=100_000, steps=str(self.steps)),
            algorithm=Algorithm(schedule=FixedPeriod(TAU), placement=RedundantChunks(2), lr_scaling="linear"),
            scaling_config=elastic(workers),
            run_config=RunConfig(
                name="run", storage_path=str(storage), failure_config=FailureConfig(max_failures=-1)
            ),
        )
        self.workers, self._error = workers, ""
        self._thread = threading.Thread(target=self._fit, daemon=True)
        self._thread.start()

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self._error = repr(error)

    def events(self, name: str = "") -> list[dict[str, Any]]:
        path = self.path / "events.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [e for e in map(json.loads, lines) if name in ("", e["event"])]

    def wait(self, condition: Callable[[], Any], every_s: float = 0.002) -> Any:
        end = time.monotonic() + LIMIT_S
        while not (found := condition()):
            if time.monotonic() > end or not self._thread.is_alive():
                raise RuntimeError(f"what was waited for did not happen: {self._error} {self.events()[-4:]}")
            time.sleep(every_s)
        return found

    def members(self) -> list[dict[str, Any]]:
        """`worker_joined` of those who are in, in the order of joining."""
        gone = {e["worker"] for name in ("worker_lost", "worker_left") for e in self.events(name)}
        newest = max((e["time_s"] for e in self.events("resumed")), default=0.0)
        return [e for e in self.events("worker_joined") if e["worker"] not in gone and e["time_s"] >= newest]

    def steady(self, workers: int = 0) -> list[dict[str, Any]]:
        """The members, once as many as there can be train together."""
        count = workers or self.workers

        def all_in() -> bool:
            formed = self.events("view_formed")
            return bool(formed) and formed[-1]["workers"] == count == len(self.members())

        self.wait(all_in, 0.05)
        time.sleep(0.5)
        return self.members()

    def kill(self, member: dict[str, Any]) -> None:
        self.strikes.append(Strike(time.time(), member["worker"]))
        os.kill(member["pid"], signal.SIGKILL)

    def after(self, event: str, count: int) -> list[dict[str, Any]]:
        """The events of that name beyond the first `count`, as soon as there is one."""
        found: list[dict[str, Any]] = self.wait(lambda: self.events(event)[count:])
        return found

    def finish(self) -> Run:
        (self.steps / "enough").touch()
        self._thread.join(LIMIT_S)
        return reader.load(self.path)


Row = Callable[[Running, random.Random, Any], None]


def zombie(run: Running, draw: random.Random, _: Any) -> None:
    """A worker is stopped, given up, and continued."""
    stopped = draw.choice(run.steady())
    lost = len(run.events("worker_lost"))
    run.strikes.append(Strike(time.time(), stopped["worker"]))
    os.kill(stopped["pid"], signal.SIGSTOP)
    run.after("worker_lost", lost)
    os.kill(stopped["pid"], signal.SIGCONT)
    run.wait(lambda: not psutil.pid_exists(stopped["pid"]))


def forming(run: Running, draw: random.Random, _: Any) -> None:
    """A worker dies, and, as soon as that is known, another."""
    first, second = draw.sample(run.steady(), 2)
    lost = len(run.events("worker_lost"))
    run.kill(first)
    run.after("worker_lost", lost)
    time.sleep(0.06 * draw.random())
    run.kill(second)


def transfer(run: Running, draw: random.Random, _: Any) -> None:
    """A worker dies; when its replacement has been ordered in, it or a member who has the state dies."""
    members = run.steady()
    joined = len(run.events("worker_joined"))
    run.kill(draw.choice(members[1:]))
    joiner = run.after("worker_joined", joined)[0]
    time.sleep(0.08 * draw.random())
    run.kill(draw.choice((joiner, members[0])))


def only_state(run: Running, draw: random.Random, _: Any) -> None:
    """Of two workers one dies; when its replacement has been ordered in, the other dies, who alone has the state."""
    first, second = run.steady()
    joined = len(run.events("worker_joined"))
    run.kill(first)
    run.after("worker_joined", joined)
    time.sleep(0.03 * draw.random())
    run.kill(second)


def raylet(run: Running, _: random.Random, nodes: Nodes) -> None:
    """The other node's raylet dies, and all on it; then another node comes."""
    run.steady()
    time_s, node = time.time(), nodes.kill()
    run.strikes += [Strike(time_s, e["worker"]) for e in run.members() if e["node"] == node]
    run.steady(run.workers // 2)
    nodes.clear()
    nodes.add()
    run.steady()


def full(run: Running, _: random.Random, disk: Path) -> None:
    """The run's disk is full for 3 s."""
    run.steady()
    recovered = len(run.events("storage_recovered"))
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (2**20, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    run.strikes.append(Strike(time.time(), ""))
    time.sleep(3)
    (disk / "filler").unlink()
    run.after("storage_recovered", recovered)


def away(run: Running, _: random.Random, _disk: Any) -> None:
    """The run's directory is gone for 3 s, and nothing can be written in its place."""
    run.steady()
    recovered = len(run.events("storage_recovered"))
    elsewhere = run.path.with_name("elsewhere")
    run.path.rename(elsewhere)
    run.path.touch()
    run.strikes.append(Strike(time.time(), ""))
    time.sleep(3)
    run.path.unlink()
    elsewhere.rename(run.path)
    run.after("storage_recovered", recovered)


@dataclass(frozen=True)
class Kind:
    """`uncovered` chunks may be for a moment: more die at once than there are copies."""

    row: Row
    workers: int = 4
    wide: bool = False
    nodes: bool = False
    tuned: bool = False
    disk: bool = False
    uncovered: bool = False


KINDS = {
    "zombie": Kind(zombie),
    "forming": Kind(forming, uncovered=True),
    "transfer": Kind(transfer, wide=True, uncovered=True),
    "only-state": Kind(only_state, workers=2, wide=True, uncovered=True),
    "raylet": Kind(raylet, nodes=True),
    "raylet-tuned": Kind(raylet, nodes=True, tuned=True),
    "full": Kind(full, disk=True),
    "away": Kind(away),
}


def problems(run: Run, running: Running, kind: Kind) -> list[str]:
    """What does not hold of the run."""
    struck = {strike.worker for strike in running.strikes} - {""}
    gone = {e["worker"] for e in named(run, "worker_lost")}
    again = len(named(run, "resumed"))
    steps = 0 if again else steps_in_no_round(run)
    rate = run.rounds["lr"] / run.rounds["workers"]
    first = run.rounds.groupby("incarnation")["loss"].first().round(3).tolist()
    said = {
        f"gone are {sorted(gone)}, struck were {sorted(struck)}": gone == struck or again > 0,
        f"{steps} steps are in no round": 0 <= steps <= (TAU + 1) * len(struck),
        f"{run.result['chunks_uncovered_max']} chunks uncovered": kind.uncovered
        or run.result["chunks_uncovered_max"] == 0,
        "the learning rate does not follow the number of workers": rate.max() - rate.min() < 1e-6,
        "a loss as of fresh weights": run.rounds["loss"].iloc[50:].max() < 1.0,
        f"first losses {first} as of fresh weights": all(loss < first[0] / 2 for loss in first[1:]),
        "the storage's trouble was not told": (kind.disk or kind.row is away)
        <= (run.result["storage_failures"] > 0),
    }
    return [*unsound(run), *(what for what, holds in said.items() if not holds)]


@contextmanager
def surroundings(kind: Kind, scratch: Path) -> Iterator[Any]:
    """The cluster, and the other node or the disk that the row plays with."""
    here = kind.workers // 2 if kind.nodes else kind.workers
    config = TUNED if kind.tuned else None
    with small_disk(scratch) if kind.disk else nullcontext(), local_cluster(here, config) as head:
        nodes = Nodes(head, kind.workers - here) if kind.nodes else None
        try:
            yield nodes or scratch
        finally:
            if nodes is not None:
                nodes.clear()


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def rehearse(kind: Kind, scratch: Path, repeats: int, draw: random.Random) -> dict[str, Any]:
    """What a run told to which that was done so many times."""
    with surroundings(kind, scratch) as around:
        running = Running(scratch, kind.workers, kind.wide)
        for _ in range(repeats):
            kind.row(running, draw, around)
        running.steady()
        run = running.finish()
        left = left_behind()
        wrong = [*problems(run, running, kind), *([f"left behind: {left}"] if left else [])]
    return {
        "wrong": wrong,
        "resumed": len(named(run, "resumed")),
        "in a view not formed": sum(unformed(run, strike) for strike in running.strikes),
        "stall_s": stalls(run, running.strikes),
        "join_s": joins(run),
        "longest_pause_s": float(pauses(run).max()),
    }


def unformed(run: Run, strike: Strike) -> bool:
    """Whether the newest view that was ordered had not formed at that moment."""
    orders = {
        name: [e["time_s"] for e in named(run, name) if e["time_s"] < strike.time_s]
        for name in ("worker_joined", "worker_lost", "view_formed")
    }
    changed_s = max([*orders["worker_joined"], *orders["worker_lost"]], default=0.0)
    return changed_s > max(orders["view_formed"], default=0.0)


def pauses(run: Run) -> Any:
    """Training time that rounds do not account for, by round."""
    rows = run.rounds
    return rows["elapsed_s"].diff() - round_s(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = docstring_parser(__doc__)
    parser.add_argument("--fault", choices=KINDS, required=True)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where the run directory stays")
    options = parser.parse_args(arguments)
    kind = KINDS[options.fault]
    with kept_or_temporary(options.keep, "moments") as folder:
        told = rehearse(kind, folder, options.repeats, random.Random(options.seed))
    for name in ("stall_s", "join_s"):
        told[name] = summary(told[name])
    print(json.dumps({"fault": options.fault, "workers": kind.workers, "repeats": options.repeats, **told}))
    return 1 if told["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
