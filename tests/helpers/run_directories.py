"""Run directories made by hand: what a run writes, without a run."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysgd_local.control.replicated.round_row import RoundRow

CONFIG = {
    "task": {"name": "digits", "model": "mlp", "epochs": 3, "optimizer": {"name": "sgd", "lr": 0.05}},
    "algorithm": {"schedule": {"kind": "adacomm", "tau0": 16, "interval_s": 0.5}},
    "workers": {"min": 4, "max": 4},
    "name": "made-up",
}


def round_row(number: int, total: int, noise: random.Random, incarnation: int = 1) -> RoundRow:
    done = number / total
    tau = max(1, 16 >> int(5 * done))
    return RoundRow(
        round=number,
        view=1 + (number > total // 2),
        incarnation=incarnation,
        workers=4 - (number > total // 2),
        tau=tau,
        scope="global",
        steps=4 * tau,
        samples=4 * tau * 16,
        epoch=int(3 * done),
        elapsed_s=0.05 * number,
        compute_s=0.03,
        sync_s=0.008,
        wait_s=0.004,
        wire_bytes=20_000,
        loss=2.3 * math.exp(-4 * done) + 0.1 * noise.random(),
        lr=0.05,
    )


def write_run(
    directory: Path,
    rounds: int = 200,
    evals: int = 3,
    ended: bool = True,
    change: Callable[[RoundRow], RoundRow] = lambda row: row,
    config: dict[str, Any] = CONFIG,
) -> Path:
    """A run directory with this many rounds and evaluations."""
    directory.mkdir(parents=True)
    noise = random.Random(directory.name)
    rows = [dataclasses.asdict(change(round_row(number, rounds, noise))) for number in range(1, rounds + 1)]
    _csv(directory / "rounds.csv", [field.name for field in dataclasses.fields(RoundRow)], rows)
    if evals:
        names = ["round", "steps", "samples", "epoch", "elapsed_s", "accuracy", "loss"]
        step = 0.05 * rounds / evals
        points = [
            (i * rounds // evals, 0, 0, i - 1, i * step, 0.97 - 0.5 / i**2, 1 / i) for i in range(1, evals + 1)
        ]
        _csv(directory / "evals.csv", names, [dict(zip(names, point, strict=True)) for point in points])
    (directory / "config.yaml").write_text(yaml.safe_dump({**config, "name": directory.name}))
    (directory / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in _events(rounds)))
    if ended:
        result = {"status": "finished", "method": "adacomm", "task": "digits", "rounds": rounds, "views": 2}
        result |= {"elapsed_s": 0.05 * rounds, "train_loss": 0.1, "workers_lost": 1, "samples_lost": 0}
        (directory / "result.json").write_text(json.dumps(result | {"samples_repeated": 0, "stall_s_max": 0.213}))
    return directory


def _events(rounds: int) -> list[dict[str, Any]]:
    start = 1_700_000_000.0
    joined = [
        {
            "time_s": start + 0.1 * rank,
            "event": "worker_joined",
            "worker": f"w{rank}",
            "rank": rank,
            "pid": 10 + rank,
        }
        for rank in range(4)
    ]
    periods = [
        {"time_s": start + 2 * i, "event": "period_changed", "from": 16 >> i, "to": 8 >> i, "why": "the loss fell"}
        for i in range(4)
    ]
    middle = start + 0.05 * rounds / 2
    lost = {"time_s": middle, "event": "worker_lost", "worker": "w3", "pid": 13, "reason": "died"}
    formed = {"time_s": middle, "event": "view_formed", "view": 2, "workers": ["w0", "w1", "w2"], "stall_s": 0.2}
    return sorted([*joined, *periods, lost, formed], key=lambda event: event["time_s"])


def _csv(path: Path, names: list[str], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def run_writer(tmp_path: Path) -> Callable[..., Path]:
    """`run_writer(name, …)` writes a run directory of that name."""

    def write(name: str, **options: Any) -> Path:
        return write_run(tmp_path / name, **options)

    return write
