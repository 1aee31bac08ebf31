"""The installed command, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import ray

pytestmark = pytest.mark.ray

COMMAND = [sys.executable, "-m", "raysgd_local.cli", "train"]
FAST = ["--set", "workers.max=2", "--set", "workers.min=2"]


def command(*arguments: str, cluster: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*COMMAND, *arguments, "--address", cluster],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def wait_for(condition, limit_s: float = 90) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def rounds(run: Path) -> int:
    table = run / "rounds.csv"
    return len(table.read_text().splitlines()) - 1 if table.exists() else 0


def test_digits_are_learnt_and_the_run_directory_is_printed_last(cluster, tmp_path):
    running = command("--storage", str(tmp_path), "--name", "digits", cluster=cluster)
    out, err = running.communicate(timeout=200)
    assert running.returncode == 0, err
    run = tmp_path / "digits"
    assert out.splitlines()[-1] == str(run)
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["eval"]["accuracy"] >= 0.95
    assert result["samples_lost"] == result["samples_repeated"] == 0
    taus = pd.read_csv(run / "rounds.csv")["tau"]
    assert taus.iloc[0] == 16
    assert taus.min() >= 1
    assert taus.iloc[-1] < 16  # it adapts
    tables = {"config.yaml", "rounds.csv", "evals.csv", "events.jsonl", "result.json"}
    assert {p.name for p in run.iterdir()} >= {*tables, "checkpoints", "report.html", "model.pt"}


@pytest.mark.long
def test_ctrl_c_ends_with_a_checkpoint_and_the_run_goes_on_from_it(cluster, tmp_path):
    run = tmp_path / "run"
    running = command(
        *FAST, "--storage", str(tmp_path), "--name", "run", "--set", "task.epochs=24", cluster=cluster
    )
    wait_for(lambda: rounds(run) > 8 or running.poll() is not None)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert f"--resume {run}" in err
    assert "Traceback" not in err
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert list((run / "checkpoints").glob("*/manifest.json"))
    assert (run / "report.html").exists()

    again = command("--resume", str(run), cluster=cluster)
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    assert out.splitlines()[-1] == str(run)
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["samples"] == 24 * 1437
    assert result["samples_lost"] == result["samples_repeated"] == 0
    assert pd.read_csv(run / "rounds.csv")["round"].is_monotonic_increasing


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def still_there(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.long
def test_of_a_killed_command_nothing_is_left_and_the_run_goes_on_from_its_checkpoint(cluster, tmp_path):
    run = tmp_path / "run"
    long = ("--set", "task.epochs=40", "--set", "checkpoints.every_s=0.5")
    running = command(*FAST, *long, "--storage", str(tmp_path), "--name", "run", cluster=cluster)
    wait_for(lambda: list((run / "checkpoints").glob("*/manifest.json")) or running.poll() is not None)
    pids = [json.loads(line).get("pid") for line in (run / "events.jsonl").read_text().splitlines()]
    theirs = [*descendants(running), *(psutil.Process(pid) for pid in pids if pid)]
    running.kill()
    running.communicate()
    wait_for(lambda: not still_there(theirs), limit_s=20)
    wait_for(lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"], limit_s=20)

    again = command("--resume", str(run), cluster=cluster)
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    assert out.splitlines()[-1] == str(run)
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["samples"]) == ("finished", 40 * 1437)
    assert result["samples_lost"] == result["samples_repeated"] == 0
    numbers = pd.read_csv(run / "rounds.csv")["round"].tolist()
    assert numbers == list(range(1, len(numbers) + 1))


def test_an_address_without_a_cluster_is_bad_input(tmp_path):
    running = command(*FAST, "--storage", str(tmp_path), cluster="127.0.0.1:1")
    _, err = running.communicate(timeout=60)
    assert running.returncode == 2
    assert err.strip().splitlines()[-1].startswith("error: address")
    assert "Traceback" not in err
    assert list(tmp_path.glob("*/config.yaml")) == []


@pytest.mark.long
def test_a_reader_that_is_gone_does_not_end_the_run(cluster, tmp_path):
    read, gone = os.pipe()
    os.close(read)
    arguments = [
        *FAST,
        "--set",
        "task.epochs=2",
        "--storage",
        str(tmp_path),
        "--name",
        "run",
        "--address",
        cluster,
    ]
    with open("/dev/full", "wb", buffering=0) as full:
        done = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=gone, timeout=200)
    os.close(gone)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (done.returncode, result["status"]) == (0, "finished")
    assert (tmp_path / "run" / "report.html").is_file()


TALKER = """
import logging, warnings
from dataclasses import dataclass
from raysgd_local.tasks import Digits

@dataclass(frozen=True, kw_only=True)
class Talker(Digits):
    def make_model(self):
        print("a print")
        warnings.warn("a warning")
        logging.warning("a log")
        return super().make_model()
"""


def test_what_workers_print_is_shown_and_kept_in_the_run_directory(cluster, tmp_path):
    (tmp_path / "talker.py").write_text(TALKER)
    options = ["--set", "task.name=talker:Talker", "--set", "task.epochs=1", "--storage", str(tmp_path)]
    command = [*COMMAND, *FAST, *options, "--name", "run", "--address", cluster]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'run'}\n"
    logs = sorted((tmp_path / "run" / "logs").iterdir())
    assert [path.name for path in logs] == ["w0.log", "w1.log"]
    for path in logs:
        kept = path.read_text()
        assert "a print\n" in kept
        assert "UserWarning: a warning" in kept
        assert "a log" in kept
        assert all(f"({path.stem}) {line}" in done.stderr for line in kept.splitlines())
