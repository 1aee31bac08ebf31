"""Races for a run between real processes: on one machine and, by namespaces, on several, one with another clock."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import lease_holder
import pytest
from object_store import object_store

from raysgd_local.run_files.lease_protocol import TAKEOVER_S

SAME_MACHINE_S = 5.0  # to take a dead holder's run over
SLACK_S = 8.0  # for the processes of other races


@dataclass
class Race:
    """Two or three processes that start at random moments; each that holds the run is killed, until one is left."""

    seed: int
    location: str
    log: Path
    random: random.Random = field(init=False)
    taken_s: list[tuple[bool, float]] = field(default_factory=list)  # on the same machine; time after a death

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def start(self, name: str, machine: int) -> subprocess.Popen[bytes]:
        """Start a process; on another machine it has a namespace of processes, and its clock may be an hour off."""
        program = [sys.executable, lease_holder.__file__, self.location, str(self.log)]
        clock = ["--time", "--boottime", "3600"] if machine == 1 else []
        space = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *clock] if machine else []
        return subprocess.Popen([*space, *program, str(self.random.uniform(0, 0.5)), name], start_new_session=True)

    def run(self) -> None:
        self.log.touch()
        machines = [self.random.choice((0, 0, 1, 2)) for _ in range(self.random.randint(2, 3))]
        processes = {f"{number}": self.start(f"{number}", machine) for number, machine in enumerate(machines)}
        try:
            before, killed_at = "", time.time()
            for _ in machines:
                holder, since = self.next_writer(before, killed_at)
                if before:
                    same = machines[int(holder)] == machines[int(before)] == 0
                    self.taken_s.append((same, since - killed_at))
                time.sleep(self.random.uniform(0.2, 4.0))
                os.killpg(processes[holder].pid, signal.SIGKILL)
                processes[holder].wait()
                before, killed_at = holder, time.time()
        finally:
            for process in processes.values():
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()

    def next_writer(self, before: str, since: float) -> tuple[str, float]:
        """Wait until another process than `before` writes; return its name, and when it began."""
        while time.time() < since + TAKEOVER_S + 60:
            for at, name in self.notes():
                if at > since and name != before:
                    return name, at
            time.sleep(0.1)
        raise AssertionError(f"race {self.seed}: nobody took the run over from {before!r}")

    def notes(self) -> list[tuple[float, str]]:
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return sorted((float(at), name) for at, name in (line for line in lines if len(line) == 2))

    def check(self) -> None:
        """There is one writer at a time, and a dead one's run is taken over within the stated time."""
        names = [name for _, name in self.notes()]
        changes = sum(one != other for one, other in itertools.pairwise(names))
        assert changes == len(set(names)) - 1, f"race {self.seed}: two wrote at a time"
        for same, seconds in self.taken_s:
            assert seconds <= (SAME_MACHINE_S if same else TAKEOVER_S) + SLACK_S, f"race {self.seed}"


def run_races(folder: Path, where: str, seeds: range, at_once: int) -> list[Race]:
    races = [
        Race(
            seed,
            f"{where}/{seed}" if "?" not in where else where.replace("?", f"/{seed}?"),
            folder / f"{seed}.log",
        )
        for seed in seeds
    ]
    with ThreadPoolExecutor(at_once) as threads:
        list(threads.map(Race.run, races))
    return races


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="namespaces need root")
@pytest.mark.long
@pytest.mark.study
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["directory", "s3"])
def test_in_20_races_there_are_never_two_writers_and_never_a_run_that_can_t_be_had(tmp_path, kind):
    if kind == "directory":
        races = run_races(tmp_path, str(tmp_path / "runs"), range(20), at_once=5)
    else:
        with object_store(tmp_path / "server.log") as store:
            races = run_races(tmp_path, store.place("runs"), range(100, 120), at_once=5)
    for race in races:
        race.check()
    here = [seconds for race in races for same, seconds in race.taken_s if same]
    elsewhere = [seconds for race in races for same, seconds in race.taken_s if not same]
    print(
        f"{kind}: taken over on the same machine after {max(here):.1f} s at most ({len(here)} times), "
        f"elsewhere after {max(elsewhere):.1f} s ({len(elsewhere)} times)"
    )
