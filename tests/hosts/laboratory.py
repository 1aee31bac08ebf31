"""A cluster as a user has it: machines, a laptop that is none of them, and the project's files there."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from machines import ROOT, SHARED, Machine, machines, wait_for
from page import the_command

_NOT_FOR_THE_LAPTOP = shutil.ignore_patterns(".git", "runs", "__pycache__", "*.egg-info", ".*_cache")

WAIT_FOR_NODES = """
import sys, time, ray
ray.init("auto", logging_level="ERROR", log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) != int(sys.argv[1]):
    time.sleep(0.5)
"""


@dataclass(frozen=True)
class Laboratory:
    """`nodes[0]` is to be the cluster's head. Commands are given on the laptop, in the project's directory."""

    laptop: Machine
    nodes: list[Machine]
    folder: Path

    @property
    def shared(self) -> Path:
        """What all see at `SHARED`."""
        return self.folder / "shared"

    def command(self, line: str) -> list[str]:
        return self.laptop.command(f"cd ~/raysgd-local; {the_command('export')}; {line}")

    def run(self, line: str, timeout_s: float = 120) -> str:
        """What the command says; fails where it does."""
        done = subprocess.run(
            self.command(line), capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def wait_for_nodes(self, count: int, limit_s: float) -> None:
        """Wait until Ray lives on so many machines, as the head knows it."""
        done = self.nodes[0].run(f"RAY_AUTH_MODE=token timeout {limit_s:g} python -c '{WAIT_FOR_NODES}' {count}")
        assert done.returncode == 0, f"not {count} machines within {limit_s:g} s\n{done.stdout}\n{done.stderr}"

    @contextmanager
    def submitted(self, name: str, options: str, on_each: int = 1) -> Iterator[Submitted]:
        """A run of the digits, at most so many workers on each machine, submitted by a command that shows it."""
        cpus = (os.cpu_count() or 1) / on_each
        line = (
            f"exec raysgd-local submit --name {name} --storage {SHARED}/runs --set workers.cpus={cpus} {options}"
        )
        log = f"{name}-{len(list(self.folder.glob(name + '*')))}.log"
        with self.beside(line, log) as command:
            yield Submitted(command, self.shared / "runs" / name, self.folder / log)

    @contextmanager
    def beside(self, line: str, log: str) -> Iterator[subprocess.Popen[bytes]]:
        """The command runs while the block does; `log` is the file, of this laboratory, that it writes to."""
        with (self.folder / log).open("wb") as stream:
            running = subprocess.Popen(
                self.command(line), stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        try:
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                running.kill()
            running.wait()


@dataclass(frozen=True)
class Submitted:
    """A run that was submitted: the command that shows it, and its directory."""

    command: subprocess.Popen[bytes]
    directory: Path
    log: Path

    def number(self) -> str:
        """The job's, as the command told it."""
        return self.log.read_text().split("submitted as ")[1].split()[0]

    def rounds(self) -> list[dict[str, str]]:
        table = self.directory / "rounds.csv"
        return list(csv.DictReader(table.read_text().splitlines())) if table.exists() else []

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = (self.directory / "events.jsonl").read_text().splitlines()
        return [found for found in map(json.loads, lines) if found["event"] == event]

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "result.json").read_text())
        return found

    def wait_for_workers(self, count: int, limit_s: float, after: int = 0) -> int:
        """Wait for a row of a round with so many workers among those after the first `after`; how many rows then."""

        def there() -> bool:
            over = self.command.poll() is not None
            return over or any(row["workers"] == str(count) for row in self.rounds()[after:])

        try:
            wait_for(there, limit_s, f"a round with {count} workers")
            assert self.command.poll() is None, "the run is over"
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-4000:]}") from None
        return len(self.rounds())

    def ended(self, limit_s: float = 120) -> int:
        """The command's exit status."""
        return self.command.wait(limit_s)


@contextmanager
def laboratory(nodes: int, folder: Path, mbit: float | None = None) -> Iterator[Laboratory]:
    """A laptop and `nodes` machines on one switch; the laptop has the project with these addresses in it."""
    with machines(nodes + 1, folder, mbit) as (laptop, *others):
        project = laptop.folder / "home" / "raysgd-local"
        shutil.copytree(ROOT, project, ignore=_NOT_FOR_THE_LAPTOP)
        page = project / "cluster" / "on-prem.yaml"
        page.write_text(addressed(page.read_text(), others))
        yield Laboratory(laptop, others, folder)


def addressed(text: str, nodes: list[Machine]) -> str:
    """The page with these machines' addresses and user, and without the installation: it needs the Internet."""
    config = yaml.safe_load(text)
    config["provider"] |= {"head_ip": nodes[0].address, "worker_ips": [node.address for node in nodes[1:]]}
    config["auth"]["ssh_user"] = "root"
    config["setup_commands"] = []
    return yaml.safe_dump(config, sort_keys=False)
