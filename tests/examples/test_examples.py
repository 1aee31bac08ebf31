"""The examples run, small, as their first lines say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(words: list[str], directory: Path, cluster: str = "") -> list[str]:
    environment = {**os.environ, "RAY_ADDRESS": cluster, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def result_of(printed: list[str]) -> dict:
    return json.loads((Path(printed[-1]) / "result.json").read_text())


def test_the_training_loop_runs_as_plain_python(tmp_path):
    printed = run([str(EXAMPLES / "training_loop.py"), "--epochs", "2", "--samples", "64"], tmp_path)
    assert [line.split()[2] for line in printed] == ["epoch=0", "epoch=1"]
    assert all("accuracy=" in line for line in printed)


@pytest.mark.long
def test_the_training_loop_runs_on_ray(tmp_path, cluster):
    options = ["--workers", "2", "--epochs", "1", "--samples", "96"]
    result = result_of(run([str(EXAMPLES / "training_loop.py"), *options], tmp_path, cluster))
    assert (result["status"], result["samples"], result["epochs"]) == ("finished", 96, 1)
    assert (result["samples_lost"], result["samples_repeated"]) == (0, 0)
    assert "accuracy" in result["eval"]


@pytest.mark.long
def test_the_custom_task_learns(tmp_path, cluster):
    result = result_of(run([str(EXAMPLES / "custom_task.py")], tmp_path, cluster))
    assert result["samples"] == 60 * 354
    assert result["eval"]["squared_error"] < 0.7


def texts(tmp_path, lines):
    (tmp_path / "texts").mkdir()
    for number in range(6):
        words = (f"line {number}-{line} of a small text that is easy to learn" for line in range(lines))
        (tmp_path / "texts" / f"{number}.txt").write_text("\n".join(words) + "\n")
    return str(tmp_path / "texts")


def test_the_stream_of_text_runs_as_plain_python(tmp_path):
    printed = run([str(EXAMPLES / "streamed_text.py"), texts(tmp_path, 40), "--length", "32"], tmp_path)
    assert [line.split()[2] for line in printed] == ["epoch=0"]


@pytest.mark.long
def test_the_stream_of_text_runs_on_ray(tmp_path, cluster):
    options = [texts(tmp_path, 100), "--workers", "2", "--length", "32", "--period", "10", "--epochs", "2"]
    result = result_of(run([str(EXAMPLES / "streamed_text.py"), *options], tmp_path, cluster))
    assert (result["status"], result["epochs"]) == ("finished", 2)
    assert (result["samples_lost"], result["samples_repeated"], result["shards_unread"]) == (0, 0, 0)
    assert result["train_loss"] < 3.0
