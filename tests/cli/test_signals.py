"""SIGINT, SIGTERM and SIGHUP to the command: at any moment it ends in order, says so, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

LIMIT_S = 150
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDLESS = ["--set", "task.epochs=100000", "--set", "workers.min=2", "--set", "workers.max=2"]
SHORT = ["--set", "task.epochs=1", "--set", "workers.min=2", "--set", "workers.max=2"]


@dataclass
class Command:
    """The command in a process of its own, with its own temporary directory."""

    process: subprocess.Popen[str]
    place: Path
    mark: str  # a value in the environment of its processes, and of theirs
    before: frozenset[str]  # names of shared memory

    @property
    def run(self) -> Path:
        return self.place / "runs" / "run"

    def wait_for(self, phase: Callable[[Command], bool]) -> Command:
        deadline = time.monotonic() + LIMIT_S
        while not phase(self) and self.process.poll() is None:
            assert time.monotonic() < deadline, self.errors
            time.sleep(0.005)
        return self

    def send(self, number: signal.Signals, times: int = 1) -> Command:
        for _ in range(times):
            if self.process.poll() is None:
                self.process.send_signal(number)
                time.sleep(0.02)
        return self

    def ended(self, within_s: float = LIMIT_S) -> int:
        return self.process.wait(within_s)

    @property
    def errors(self) -> str:
        return (self.place / "errors").read_text()

    def result(self) -> dict:
        return json.loads((self.run / "result.json").read_text())

    def left(self) -> list[str]:
        """What is left of it: processes (they have moments to end), shared memory, temporary files."""
        deadline = time.monotonic() + 10
        while (found := processes_with(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.05)
        temporary = self.place / "t"
        files = [str(path.relative_to(temporary)) for path in temporary.rglob("*") if not path.is_dir()]
        return [*found, *(set(os.listdir("/dev/shm")) - self.before), *files, *self.drafts()]

    def drafts(self) -> list[str]:
        return [
            str(path) for path in (self.place / "runs").rglob("*") if "tmp" in path.name or "lease" in path.name
        ]


def processes_with(mark: str) -> list[str]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark.encode() in Path(f"/proc/{entry}/environ").read_bytes():
                found.append(Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:100])
        except OSError:
            continue
    return [command for command in found if command]


@pytest.fixture
def start() -> Iterator[Callable[..., Command]]:
    place = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))  # short: Ray's sockets are below it
    started: list[Command] = []

    def begin(
        *arguments: str, module: str = "raysgd_local", files: dict[str, str] | None = None, **options: object
    ) -> Command:
        shutil.rmtree(place, ignore_errors=True)
        (place / "t").mkdir(parents=True)
        for name, text in (files or {}).items():
            (place / name).write_text(text)
        mark = f"SIGNALS_{uuid.uuid4().hex}"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment = {**inherited, "TMPDIR": str(place / "t"), "OMP_NUM_THREADS": "1", "MARK": mark}
        shared = frozenset(os.listdir("/dev/shm"))
        command = [sys.executable, "-m", module, *arguments]
        with open(place / "errors", "w") as errors, open(place / "output", "w") as output:
            process = subprocess.Popen(
                command, cwd=place, env=environment, stdout=output, stderr=errors, **options
            )  # type: ignore[call-overload]
        started.append(Command(process, place, mark, shared))
        return started[-1]

    yield begin
    for command in started:
        command.process.kill()
        command.process.wait()
    shutil.rmtree(place, ignore_errors=True)


# Phases.


def importing(command: Command) -> bool:
    """Whether it has its signal handlers, which it installs before anything large is imported."""
    status = Path(f"/proc/{command.process.pid}/status").read_text()
    caught = int(status.split("SigCgt:")[1].split()[0], 16)
    return all(caught >> (number - 1) & 1 for number in SIGNALS)


def starting(command: Command) -> bool:
    return (command.run / "lease").exists()


def ray_starting(command: Command) -> bool:
    return any((command.place / "t").glob("ray/session_2*/logs"))


def training(command: Command) -> bool:
    table = command.run / "rounds.csv"
    return table.exists() and table.read_text().count("\n") > 3


def ending(command: Command) -> bool:
    return (command.run / "result.json").exists()


def check(command: Command, number: signal.Signals, within_s: float = LIMIT_S) -> None:
    assert command.ended(within_s) == 128 + number, command.errors
    told = command.errors
    assert "Traceback" not in told
    assert "***" not in told, "a dump of Ray's"
    assert not command.left()


PHASES = [starting, ray_starting, training, ending]
each_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


def words(number: signal.Signals) -> str:
    return "interrupted" if number == signal.SIGINT else f"ended by {number.name}"


@each_signal
def test_a_signal_while_it_imports_ends_it_with_one_line_and_nothing_written(start, number) -> None:
    command = start("train", "--name", "run", *ENDLESS).wait_for(importing).send(number)
    check(command, number)
    assert command.errors == f"{words(number)}\n"
    assert not command.run.exists()


def test_nohup_keeps_its_meaning(start) -> None:
    ignored = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    command = start("simulate", "--name", "run", *SHORT, preexec_fn=ignored)
    command.wait_for(starting_simulation).send(signal.SIGHUP)
    assert command.ended() == 0


@pytest.mark.long
def test_a_terminal_s_signal_reaches_loader_processes_too_and_counts_once(start) -> None:
    loaders = ["--set", "task.loader_workers=2", "--workers", "1", "--set", "task.epochs=100000"]
    command = start("simulate", "--name", "run", *loaders, start_new_session=True).wait_for(training)
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.ended() == 128 + signal.SIGINT, command.errors
    assert "Traceback" not in command.errors
    assert all(
        name.startswith("pymp-") for name in command.left()
    )  # torch's loaders leave names of sockets behind
    assert command.errors.splitlines()[-1] == f"interrupted; the results so far are in {command.run}"
    assert command.result()["status"] == "interrupted"
    assert list(command.run.glob("checkpoints/*/manifest.json"))


def starting_simulation(command: Command) -> bool:
    return (command.run / "config.yaml").exists()


@pytest.mark.long
def test_a_signal_while_ray_starts_ends_it_and_the_name_stays_free(start) -> None:
    command = start("train", "--name", "run", *ENDLESS).wait_for(ray_starting).send(signal.SIGINT)
    check(command, signal.SIGINT)
    assert command.errors.splitlines()[-1].startswith("interrupted")
    assert "resume" not in command.errors
    assert not command.run.exists()


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.long) for number in (signal.SIGINT, signal.SIGHUP))],
    ids=lambda number: number.name,
)
def test_a_signal_in_training_ends_it_with_a_checkpoint_and_advice_that_works(start, number) -> None:
    command = start("train", "--name", "run", *ENDLESS, start_new_session=True).wait_for(training)
    os.killpg(command.process.pid, number)  # as terminals, Slurm and systemd do
    check(command, number)
    assert command.errors.splitlines()[-1] == f"interrupted; go on with: raysgd-local train --resume {command.run}"
    result = command.result()
    assert result["status"] == "interrupted"
    assert result["rounds"] > 3
    assert list(command.run.glob("checkpoints/*/manifest.json"))


@pytest.mark.long
@pytest.mark.parametrize("phase", [ray_starting, training])
def test_a_second_signal_ends_it_at_once(start, phase) -> None:
    command = start("train", "--name", "run", *ENDLESS).wait_for(phase).send(signal.SIGTERM, times=2)
    check(command, signal.SIGTERM, within_s=10)


SWEEP = """
base: {task: {name: digits, epochs: 100000}, workers: {min: 1, max: 1}}
space: {algorithm.schedule.tau0: {grid_search: [4, 16]}}
metric: accuracy
budget: {trials: 1, concurrent: 1}
"""


def trying(command: Command) -> bool:
    """Whether a trial of the sweep trains."""
    tables = (command.place / "runs" / "run").glob("trial_*/run/rounds.csv")
    return any(table.read_text().count("\n") > 3 for table in tables)


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@each_signal
def test_a_signal_to_a_sweep_ends_it_and_its_trial_with_advice_that_works(start, number, times) -> None:
    command = start("tune", "sweep.yaml", "--name", "run", files={"sweep.yaml": SWEEP}).wait_for(trying)
    command.send(number, times)
    check(command, number, within_s=LIMIT_S if times == 1 else 15)
    if times == 1:
        assert (
            command.errors.splitlines()[-1] == f"interrupted; go on with: raysgd-local tune --resume {command.run}"
        )
        results = command.run.glob("trial_*/run/result.json")
        assert {json.loads(file.read_text())["status"] for file in results} == {"interrupted"}
        assert list(command.run.glob("trial_*/run/checkpoints/*/manifest.json"))


@pytest.mark.long
def test_a_signal_at_the_end_leaves_the_result_as_it_is(start) -> None:
    command = start("train", "--name", "run", *SHORT).wait_for(ending).send(signal.SIGTERM)
    check(command, signal.SIGTERM)
    assert command.result()["status"] == "finished"


@pytest.mark.long
@pytest.mark.study
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@each_signal
def test_at_random_moments(start, number, times) -> None:
    """`SIGNALS_MOMENTS` says how many; `SIGNALS_SEED` which."""
    draw = random.Random(f"{os.environ.get('SIGNALS_SEED', '0')}-{number}-{times}")
    moments = int(os.environ.get("SIGNALS_MOMENTS", "30"))
    figures: dict[str, int] = {}
    for _ in range(moments):
        phase = draw.choice([importing, *PHASES])
        command = start("train", "--name", "run", *(SHORT if phase is ending else ENDLESS)).wait_for(importing)
        command.wait_for(phase)
        time.sleep(draw.expovariate(1.0))
        trained = training(command)
        command.send(number, times)
        status = command.ended()
        ended_before = command.result()["status"] if status == 0 else ""
        assert (status, ended_before) in ((128 + number, ""), (0, "finished")), command.errors
        assert "Traceback" not in command.errors
        assert "***" not in command.errors
        assert not command.left()
        kept = bool(list(command.run.glob("checkpoints/*/manifest.json")))
        assert kept or not trained or times == 2
        told = f"status {status}, {'a checkpoint' if kept else 'no checkpoint'}"
        figures[told] = figures.get(told, 0) + 1
    print(number.name, times, figures)
