"""Ctrl-C while a run is simulated: it ends as a real one does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from raysgd_local.cli import app
from raysgd_local.run_files import journal

ENDLESS = ["--workers", "2", "--set", "task.epochs=1000000", "--set", "checkpoints.every_epochs=null"]


def interrupted(place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A simulation that gets SIGINT as soon as rounds are written."""
    command = [sys.executable, "-m", "raysgd_local.cli", "simulate", "--name", "run", *ENDLESS, *options]
    with subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        deadline = time.monotonic() + 120
        while not (place / "runs" / "run" / "rounds.csv").exists():
            assert time.monotonic() < deadline
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=120)
    return subprocess.CompletedProcess(command, running.returncode, out, err)


TIMING_ONLY = pytest.param(["--timing-only"], id="timing-only", marks=pytest.mark.long)


@pytest.mark.parametrize("options", [pytest.param([], id="learning"), TIMING_ONLY])
def test_ctrl_c_ends_it_with_a_whole_directory_and_status_130(tmp_path, options):
    done = interrupted(tmp_path, *options)
    run = tmp_path / "runs" / "run"
    assert done.returncode == 130, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == f"interrupted; the results so far are in {run}"
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["reason"]) == ("interrupted", "interrupted")
    assert result["rounds"] > 0
    assert (run / "report.html").is_file()
    assert len(list(run.glob("checkpoints/*/manifest.json"))) == (0 if options else 1)


def test_an_interrupt_of_chaos_ends_it_likewise_and_what_did_not_happen_is_told(tmp_path, capsys):
    faults = "interrupt@round=5; kill:1@round=9999"
    options = ["--workers", "2", "--storage", str(tmp_path), "--name", "run", "--chaos", faults]
    assert app.run(["simulate", *options]) == app.INTERRUPTED
    assert "warning: kill:1@round=9999 did not happen: the run has " in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "interrupted"
    assert all(step.same for step in journal.replay(journal.read(tmp_path / "run")))


def test_in_another_thread_ctrl_c_is_left_alone(tmp_path):
    options = ["--timing-only", "--set", "task.epochs=1", "--storage", str(tmp_path), "--name", "run"]
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(app.run(["simulate", *options])))
    thread.start()
    thread.join(120)
    assert done == [0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
