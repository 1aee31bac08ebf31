"""What a worker prints: in its file of the run's directory, and line by line for whoever started the run."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from pyarrow import fs

from raysgd_local.run_files.storage import Storage
from raysgd_local.runtime.worker_output import WorkerOutput


@pytest.fixture(autouse=True)
def streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process' streams come back after the test."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)


def installed(place: Path, echo: bool = True) -> WorkerOutput:
    place.mkdir(exist_ok=True)
    output = WorkerOutput("w1", Storage.at(str(place)), echo)
    output.install()
    return output


def test_prints_and_logs_are_kept_and_told(tmp_path) -> None:
    output = installed(tmp_path)
    print("a", 1)
    logger = logging.getLogger("test_worker_output")
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    logger.warning("noted")
    logger.removeHandler(handler)
    kept = (tmp_path / "logs" / "w1.log").read_text()
    told = output.take()
    assert kept.splitlines() == list(told)
    assert told[0] == "a 1"
    assert told[-1] == "noted"
    assert output.take() == ()


def test_a_line_is_told_when_it_ends_and_of_a_progress_bar_the_last_state(tmp_path) -> None:
    output = installed(tmp_path)
    print("10 %\r20 %\r30 %", end="")
    assert output.take() == ()
    print("")
    assert output.take() == ("30 %",)
    print("no end", end="")
    assert output.take(last=True) == ("no end",)


def test_of_very_many_lines_the_newest_are_told_and_all_are_kept(tmp_path) -> None:
    output = installed(tmp_path)
    for number in range(2000):
        print(number)
    told = output.take()
    assert told[0] == "… 1500 lines, see logs/w1.log"
    assert told[1:] == tuple(map(str, range(1500, 2000)))
    assert len((tmp_path / "logs" / "w1.log").read_text().splitlines()) == 2000


def test_without_echo_lines_are_only_kept(tmp_path) -> None:
    output = installed(tmp_path, echo=False)
    print("quiet")
    assert output.take(last=True) == ()
    assert (tmp_path / "logs" / "w1.log").read_text() == "quiet\n"


def test_a_storage_that_is_away_and_a_full_disk_are_no_error_of_the_loop(tmp_path, monkeypatch) -> None:
    full = open("/dev/full", "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", full)
    output = installed(tmp_path / "run")
    (tmp_path / "run").rmdir()
    for _ in range(3):
        print("x" * 10_000, flush=True)
    assert len(output.take()) == 3
    with suppress(OSError):
        full.close()


def test_storage_that_can_t_append_gets_the_whole_text(tmp_path) -> None:
    remote = Storage(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "run")
    output = WorkerOutput("w1", remote, echo=False)
    output.install()
    print("one")
    output.copy()
    print("two")
    output.copy()
    assert (tmp_path / "run" / "logs" / "w1.log").read_text() == "one\ntwo\n"


def test_a_forked_process_may_print_while_the_parent_does(tmp_path) -> None:
    output = installed(tmp_path)
    with output._turn:
        pid = os.fork()
        if pid == 0:
            print("of the child")
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert output.take() == ()
    assert (tmp_path / "logs" / "w1.log").read_text() == "of the child\n"
