"""Real trials where something else than the sweep's own draw says which: Optuna, and the simulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

pytestmark = [pytest.mark.long, pytest.mark.study, pytest.mark.timeout(600)]
SWEEP: dict[str, Any] = {
    "base": {"task": {"name": "digits", "epochs": 1000}, "workers": {"min": 1, "max": 1}},
    "settings": {"stop.target": {"metric": "accuracy", "value": 0.9}},
    "space": {
        "algorithm.schedule.tau0": {"choice": [2, 8, 32]},
        "task.optimizer.lr": {"loguniform": [1e-4, 0.1]},
    },
    "metric": "time_to_target_s",
    "budget": {"trials": 3, "training_s": 1.0, "concurrent": 2},
}


@pytest.fixture
def swept(cluster: str, tmp_path: Path):
    """`swept(option…, **changes)` runs the command on a sweep with these changes; its directory, and what it told."""

    def sweep(*options: str, **changes: Any) -> tuple[Path, str]:
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**SWEEP, **changes}))
        (tmp_path / "cluster.yaml").write_text("steps: {kind: constant, mean_s: 0.002}")
        words = ["tune", "sweep.yaml", "--storage", str(tmp_path), "--name", "sweep", *options]
        done = subprocess.run(
            [sys.executable, "-m", "raysgd_local.cli", *words],
            cwd=tmp_path,
            env={**os.environ, "RAY_ADDRESS": cluster},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return tmp_path / "sweep", done.stderr

    return sweep


def real(directory: Path) -> int:
    """How many real trials went to their end."""
    results = [json.loads(file.read_text()) for file in directory.glob("trial_*/run/result.json")]
    return sum(result["status"] == "finished" for result in results)


def test_optuna_chooses_the_points_is_told_what_came_of_them_and_goes_on(swept):
    pytest.importorskip("optuna")
    directory, told = swept("--resume", "auto", searcher={"kind": "optuna", "seed": 1})
    table = pd.read_parquet(directory / "trials.parquet")
    assert real(directory) == len(table) == 3
    assert set(table["algorithm.schedule.tau0"]) <= {2, 8, 32}
    assert table["task.optimizer.lr"].between(1e-4, 0.1).all()
    assert "A new study created" not in told
    assert all(line.startswith(("trial_", *"0123", "best: ")) for line in told.splitlines())
    before = {file: file.stat().st_mtime_ns for file in directory.glob("trial_*/run/rounds.csv")}
    swept("--resume", "auto", searcher={"kind": "optuna", "seed": 1})
    assert {file: file.stat().st_mtime_ns for file in directory.glob("trial_*/run/rounds.csv")} == before


def test_the_simulators_best_points_are_really_tried(swept):
    directory, told = swept("--simulate", "--cluster", "cluster.yaml", "--top", "2", metric="loss_at_budget")
    simulated = pd.read_parquet(directory / "simulated" / "trials.parquet")
    table = pd.read_parquet(directory / "trials.parquet")
    assert "3 of 3 trials simulated" in told
    assert len(simulated) == 3
    assert real(directory) == len(table) == 2
    assert set(table["task.optimizer.lr"]) == set(simulated["task.optimizer.lr"][:2])
    best = yaml.safe_load((directory / "best.yaml").read_text())
    assert best["task"]["optimizer"]["lr"] in set(table["task.optimizer.lr"])
