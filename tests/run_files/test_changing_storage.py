"""Storage that changes under a run: its tables are whole in the end, or the run says which files are not."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raysgd_local.control.controller import events as c
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.records import EvalRow
from raysgd_local.run_files.recording import Recording
from raysgd_local.run_files.result import Names
from raysgd_local.run_files.storage import Storage
from raysgd_local.run_files.writer import RunFiles

FILES = ("rounds.csv", "evals.csv", "events.jsonl", "journal.jsonl")


class Run:
    """A recording in a directory, and the rounds that it was given."""

    def __init__(self, path: Path) -> None:
        self.path, self.rounds, self.now = path, 0, 0.0
        self.recording = Recording(Storage.at(str(path)), lambda: self.now, config="name: run\n")
        self.recording._write_config()
        self.step()

    def step(self) -> None:
        """One more round, with all that is written beside it, and the retries that are due."""
        self.rounds += 1
        self.now += 60.0
        evaluation = EvalRow(self.rounds, 1, 1, 0, 1.0, {"loss": 0.5})
        self.recording.record(c.RecordRounds((row(self.rounds),), (evaluation,)))
        self.recording.files.journal({"kind": "Line", "number": self.rounds})
        self.recording.event("stepped", round=self.rounds)
        self.recording.files.retry(self.now)

    def end(self, sleep: Callable[[float], None] = lambda _: None) -> dict:
        _, content = self.recording.end(c.Finish("finished", "done"), None, Names("m", "t"), sleep)
        return content

    def numbers(self) -> dict[str, list[int]]:
        """The rounds that each file has."""
        tables = {name: list(csv.DictReader((self.path / name).open())) for name in FILES[:2]}
        events = [json.loads(line) for line in (self.path / "events.jsonl").read_text().splitlines()]
        journal = [json.loads(line) for line in (self.path / "journal.jsonl").read_text().splitlines()]
        return {
            **{name: [int(line["round"]) for line in lines] for name, lines in tables.items()},
            "events.jsonl": [event["round"] for event in events if event["event"] == "stepped"],
            "journal.jsonl": [line["number"] for line in journal],
        }

    def assert_whole(self) -> None:
        assert self.numbers() == {name: list(range(1, self.rounds + 1)) for name in FILES}
        assert json.loads((self.path / "result.json").read_text())["rounds"] == self.rounds
        assert (self.path / "config.yaml").read_text() == "name: run\n"

    def told(self) -> set[str]:
        lines = (self.path / "events.jsonl").read_text().splitlines()
        return {json.loads(line)["event"] for line in lines}


def row(round: int) -> RoundRow:
    return dataclasses.replace(
        RoundRow(0, 1, 1, 2, 4, "global", 8, 64, 0, 0.5, 0.1, 0.1, 0.0, 100, 1.5, 0.1), round=round
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


@pytest.mark.parametrize("steps_away", [1, 3])
@pytest.mark.parametrize("written_meanwhile", [False, True])
def test_a_directory_that_is_moved_away_and_back_has_every_row(
    run: Run, steps_away: int, written_meanwhile: bool
) -> None:
    away = run.path.with_name("away")
    run.path.rename(away)
    if not written_meanwhile:
        run.path.touch()  # nothing can be written in its place
    for _ in range(steps_away):
        run.step()
    run.path.unlink() if not written_meanwhile else shutil.rmtree(run.path)
    away.rename(run.path)
    run.step()
    run.end()
    run.assert_whole()
    assert {"storage_failed", "storage_recovered"} <= run.told()


def test_a_directory_that_is_deleted_is_written_again_with_every_row_and_the_configuration(run: Run) -> None:
    run.step()
    shutil.rmtree(run.path)
    run.step()
    run.end()
    run.assert_whole()


def test_a_directory_that_is_deleted_after_the_last_round_is_written_again(run: Run) -> None:
    run.step()
    shutil.rmtree(run.path)
    run.end()
    run.assert_whole()


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_somebody_shortens_changes_or_deletes_is_whole_in_the_end(run: Run, name: str) -> None:
    for change in ("shorten", "change", "delete"):
        path = run.path / name
        content = path.read_bytes()
        match change:
            case "shorten":
                path.write_bytes(content[:-20])
            case "change":
                path.write_bytes(content[:-10] + b"x" + content[-9:])
            case "delete":
                path.unlink()
        run.step()
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))  # far from its end, and nothing comes after it
    run.end()
    run.assert_whole()


def test_an_older_copy_of_the_directory_in_its_place_gets_what_it_lacks(run: Run) -> None:
    copy = Path(shutil.copytree(run.path, run.path.with_name("copy")))
    run.step()
    run.step()
    shutil.rmtree(run.path)
    copy.rename(run.path)
    run.end()
    run.assert_whole()


@pytest.fixture
def overlay(tmp_path: Path):
    """Mounts an empty file system over a directory, and takes it away again."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    mounted: list[Path] = []

    def mount(path: Path) -> None:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)], capture_output=True)
        if done.returncode:
            pytest.skip(f"can't mount: {done.stderr.decode().strip()}")
        mounted.append(path)

    def unmount() -> None:
        subprocess.run(["umount", "-l", str(mounted.pop())], check=True)

    yield mount, unmount
    while mounted:
        unmount()


def test_a_file_system_that_lies_over_the_directory_for_a_while_hides_no_row(run: Run, overlay) -> None:
    mount, unmount = overlay
    mount(run.path)
    run.step()
    run.step()
    unmount()
    run.step()
    run.end()
    run.assert_whole()


def test_a_disk_that_is_unmounted_and_comes_back_has_every_row(tmp_path: Path, overlay) -> None:
    mount, unmount = overlay
    (tmp_path / "disk").mkdir()
    mount(tmp_path / "disk")
    run = Run(tmp_path / "disk" / "run")
    source = tmp_path / "held"
    source.mkdir()
    subprocess.run(["mount", "--bind", str(tmp_path / "disk"), str(source)], check=True)
    try:
        unmount()
        run.step()  # into the mount point, which is writable
        run.step()
        assert run.path.exists()
        subprocess.run(["mount", "--bind", str(source), str(tmp_path / "disk")], check=True)
        run.step()
        run.end()
        run.assert_whole()
    finally:
        subprocess.run(["umount", "-l", str(source)], check=True)
        subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=False)


def test_a_disk_that_comes_back_while_the_run_ends_has_every_row(tmp_path: Path, overlay) -> None:
    mount, unmount = overlay
    run = Run(tmp_path / "run")
    mount(run.path)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if sum(waits) == 3.0:
            unmount()

    run.end(sleep)
    assert sum(waits) == 7.0
    run.assert_whole()


def test_a_run_without_trouble_does_not_wait_at_its_end(run: Run) -> None:
    waits: list[float] = []
    run.end(waits.append)
    assert sum(waits) == 0.0
    run.assert_whole()


def test_files_of_the_last_checkpoint_that_the_storage_lost_are_named_in_the_result(run: Run) -> None:
    run.recording.publish("000001", {"replicated": {"round": 1}})
    shutil.rmtree(run.path)
    content = run.end()
    assert content["missing"] == ["checkpoints/000001/manifest.json", "model.pt"]
    assert "files_missing" in run.told()
    assert json.loads((run.path / "result.json").read_text())["missing"] == content["missing"]


def test_events_from_several_threads_are_no_change_of_the_storage(tmp_path):
    files = RunFiles(Storage.at(str(tmp_path / "run")), time.time)
    with ThreadPoolExecutor(8) as threads:
        for number in range(400):
            threads.submit(files.event, "log", number=number)
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert sorted(line["number"] for line in lines) == list(range(400))
    assert lines == files.events
