"""One sweep on a real cluster, interrupted, killed and gone on with; Ray's state is asked what is left each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import ray
import yaml
from ray.util import placement_group_table

from raysgd_local import config
from raysgd_local.run_files import reader

TASK = """
import time
from dataclasses import dataclass
from pathlib import Path

from raysgd_local.tasks import Digits


@dataclass(frozen=True, kw_only=True)
class Trying(Digits):
    fault: str = ""
    place: str = ""

    def make_model(self):
        if self.fault == "poor":  # so that there is someone who was better at the same time
            self.wait(lambda: any('"finished"' in p.read_text() for p in self.files("*/trial_*/run/result.json")))
        return super().make_model()

    def loss(self, model, batch):
        if self.fault == "raise" and not self.files("mended"):
            raise ValueError("not mended yet")
        if self.fault == "long":
            self.wait(lambda: self.files("go"))
        return super().loss(model, batch) * (1e-6 if self.fault == "poor" else 1.0)

    def files(self, pattern):
        return list(Path(self.place).glob(pattern))

    def wait(self, event):
        end = time.monotonic() + 120
        while not event() and time.monotonic() < end:
            time.sleep(0.05)
"""
TRIALS = ("", "poor", "raise", "long")
LIMIT_S = 240
pytestmark = [
    pytest.mark.long,
    pytest.mark.study,
    pytest.mark.timeout(900),
]  # a story of three commands, on machines that are slow at times


class Sweep:
    """The command, its directory, and what Ray and the system know of it."""

    def __init__(self, place: Path, cluster: str) -> None:
        self.place, self.cluster = place, cluster
        self.directory = place / "sweep"
        self.before = set(live_actors()), set(live_groups())
        self.first: dict[str, tuple[str, float]] = {}
        (place / "trying.py").write_text(TASK)
        workers = {"min": 1, "max": 2, "start_timeout_s": 60.0}
        base = {"task": {"name": "trying:Trying", "epochs": 1000, "place": str(place)}, "workers": workers}
        base["checkpoints"] = {"every_epochs": 100}
        sweep = {
            "base": base,
            "space": {"task.fault": {"grid_search": list(TRIALS)}},
            "metric": "accuracy",
            "budget": {"trials": 1, "training_s": 2.0, "concurrent": 2},
            "scheduler": {"kind": "asha", "grace_s": 0.3, "reduction_factor": 2.0},
        }
        (place / "sweep.yaml").write_text(yaml.safe_dump(sweep))

    def start(self) -> subprocess.Popen[str]:
        words = ["tune", "sweep.yaml", "--storage", str(self.place), "--name", "sweep", "--resume", "auto"]
        environment = {**os.environ, "RAY_ADDRESS": self.cluster, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "raysgd_local.cli", *words],
            cwd=self.place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, fault: str) -> Path:
        """The run of the trial with this fault."""
        for file in self.directory.glob("trial_*/run/config.yaml"):
            if yaml.safe_load(file.read_text())["task"]["fault"] == fault:
                return file.parent
        return self.directory / "none yet"

    def events(self, fault: str) -> list[dict[str, Any]]:
        file = self.run(fault) / "events.jsonl"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines]

    def workers(self, fault: str) -> list[int]:
        """The processes of the trial's workers, once all are in; none before."""
        pids = [event["pid"] for event in self.events(fault) if event["event"] == "worker_joined"]
        return pids if len(pids) == 2 else []

    def status(self, fault: str) -> str:
        file = self.run(fault) / "result.json"
        return str(json.loads(file.read_text())["status"]) if file.exists() else ""

    def new_actors(self) -> dict[str, int]:
        return {name: pid for name, pid in live_actors().items() if name not in self.before[0]}

    def new_groups(self) -> set[str]:
        return set(live_groups()) - self.before[1]


def live_actors() -> dict[str, int]:
    """Process ids by actor."""
    known = ray._private.state.actors()
    return {name: actor["Pid"] for name, actor in known.items() if actor["State"] not in ("DEAD", 4)}


def lives(pid: int) -> bool:
    """Whether there is such a process; an actor that is not placed yet has none, and says 0."""
    return pid > 0 and psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def live_groups() -> list[str]:
    return [name for name, group in placement_group_table().items() if group["state"] != "REMOVED"]


def wait_for(event: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        found = event()
        if found:
            return found
        time.sleep(0.05)
    pytest.fail(f"{what}: not within {limit_s} s")


def assert_all_is_free(sweep: Sweep, pids: list[int]) -> None:
    """No actor, placement group or process is left, and all resources are free, within 5 s."""
    whole = ray.cluster_resources()["CPU"]

    def is_free() -> bool:
        left = sweep.new_actors() or sweep.new_groups() or any(map(lives, pids))
        return not left and ray.available_resources().get("CPU") == whole

    wait_for(is_free, f"actors {sweep.new_actors()}, groups {sweep.new_groups()}, processes {pids} gone", 5)


@pytest.fixture(scope="module")
def swept(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """The story: Ctrl-C, then SIGKILL, then the end with a worker killed. What it shows is asserted on the way."""
    sweep = Sweep(tmp_path_factory.mktemp("sweep"), cluster)
    command = sweep.start()
    try:
        wait_for(lambda: sweep.status("") == "finished" and sweep.status("raise") == "failed", "two trials' ends")
        poor = wait_for(lambda: sweep.workers("poor"), "the poor trial's workers")
        wait_for(lambda: not any(map(lives, poor)), "their end by the scheduler")
        long = wait_for(lambda: sweep.workers("long"), "the long trial's workers")
        pids = [*sweep.new_actors().values(), *long]
        command.send_signal(signal.SIGINT)
        _, told = command.communicate(timeout=60)
        assert command.returncode == 130, told
        assert "interrupted; go on with: raysgd-local tune --resume" in told
        assert_all_is_free(sweep, pids)
        sweep.first = {fault: told_of(sweep.run(fault)) for fault in ("", "poor")}

        (sweep.place / "mended").touch()
        command = sweep.start()
        wait_for(lambda: sweep.status("raise") == "finished", "the failed trial's second try")
        long = wait_for(lambda: set(sweep.workers("long")) - set(long) and sweep.workers("long"), "the long trial")
        pids = [*sweep.new_actors().values(), *long]
        command.kill()
        command.communicate()
        assert_all_is_free(sweep, pids)

        command = sweep.start()
        long = wait_for(lambda: set(sweep.workers("long")) - set(long) and sweep.workers("long"), "the long trial")
        os.kill(long[-1], signal.SIGKILL)
        wait_for(lambda: any(e["event"] == "worker_lost" for e in sweep.events("long")), "its worker's death")
        (sweep.place / "go").touch()
        out, told = command.communicate(timeout=LIMIT_S)
        assert command.returncode == 0, told
        assert out.splitlines()[-1] == str(sweep.directory)
        assert_all_is_free(sweep, long)
    finally:
        command.kill()
    return sweep


def told_of(run: Path) -> tuple[str, float]:
    return (run / "events.jsonl").read_text(), (run / "rounds.csv").stat().st_mtime


def test_finished_and_stopped_trials_are_not_run_again(swept):
    assert {fault: told_of(swept.run(fault)) for fault in ("", "poor")} == swept.first
    assert len(list(swept.directory.glob("trial_*/run"))) == len(TRIALS)


def test_the_table_says_how_each_trial_ended(swept):
    table = pd.read_parquet(swept.directory / "trials.parquet").fillna({"task.fault": ""})
    found = dict(zip(table["task.fault"], table["status"], strict=True))
    assert found == {"": "finished", "poor": "stopped early", "raise": "finished", "long": "finished"}


def test_a_trial_goes_on_without_a_worker_that_was_killed(swept):
    result = reader.load(swept.run("long")).result
    assert (result["status"], result["workers_lost"]) == ("finished", 1)


def test_the_best_configuration_and_the_page_are_there_and_tensorboards_files(swept):
    assert config.load(swept.directory / "best.yaml", settings=["task.name=digits"]).stop.seconds == 2.0
    assert (swept.directory / "report.html").stat().st_size > 10_000
    assert len(list(swept.directory.glob("trial_*/events.out.tfevents*"))) >= len(TRIALS)
