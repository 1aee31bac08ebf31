"""Real worker processes that stop, hang or are told to go, and what the others make of it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from ray.train import RunConfig, ScalingConfig
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer
from raysgd_local.control.settings import Limit

pytestmark = pytest.mark.ray

SAMPLES = 480


def patient_loop(config):
    """Trains until the file `enough` is there; steps take a while, as they do in earnest."""
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(nn.Linear(2, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    data = TensorDataset(torch.randn(SAMPLES, 2), torch.randn(SAMPLES, 1))
    for _ in ctx.epochs(10_000):
        for x, y in ctx.batches(data, batch_size=8):
            loss = F.mse_loss(model(x), y)
            loss.backward()
            time.sleep(config["step_s"])
            ctx.step(loss)
            hang = Path(config["folder"]) / f"hang-{os.getpid()}"
            while hang.exists():
                time.sleep(0.05)
            if (Path(config["folder"]) / "enough").exists():
                ctx.stop()


class Running:
    """A run in a thread, seen through its files."""

    def __init__(self, folder: Path, workers: int = 3, timeouts: dict[str, Any] | None = None) -> None:
        self.folder, self.path = folder, folder / "run"
        self._trainer = LocalSGDTrainer(
            train_loop_per_worker=patient_loop,
            train_loop_config={"folder": str(folder), "step_s": 0.01},
            algorithm=Algorithm(schedule=FixedPeriod(4)),
            scaling_config=ScalingConfig(num_workers=(1, workers)),
            run_config=RunConfig(name="run", storage_path=str(folder)),
        )
        if timeouts:
            settings = self._trainer._request.settings
            changed = replace(settings, timeouts=replace(settings.timeouts, **timeouts))
            self._trainer._request = replace(self._trainer._request, settings=changed)
        self._result: Any = None
        self._thread = threading.Thread(target=self._fit, daemon=True)
        self._thread.start()

    def _fit(self) -> None:
        try:
            self._result = self._trainer.fit()
        except BaseException as error:
            self._result = error

    def events(self, name: str = "") -> list[dict[str, Any]]:
        path = self.path / "events.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [event for event in found if event["event"] == name] if name else found

    def wait(self, condition: Callable[[], Any], what: str, limit_s: float = 90) -> Any:
        deadline = time.monotonic() + limit_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what} did not happen: {self.events()[-5:]}"
            assert self._thread.is_alive(), self._result
            time.sleep(0.01)
        return found

    def rounds(self) -> list[dict[str, str]]:
        import csv

        path = self.path / "rounds.csv"
        return list(csv.DictReader(path.open())) if path.exists() else []

    def pids(self) -> dict[str, int]:
        """Of everyone who ever joined."""
        return {event["worker"]: event["pid"] for event in self.events("worker_joined")}

    def steady(self, workers: int) -> dict[str, int]:
        """The workers' pids, once all are in and rounds are resolved."""
        self.wait(lambda: len(self.pids()) >= workers and self.events("view_formed") and self.rounds(), "training")
        return self.pids()

    def finish(self) -> dict[str, Any]:
        """The result's metrics, when training was told that it is enough."""
        (self.folder / "enough").touch()
        self._thread.join(60)
        assert not isinstance(self._result, BaseException), self._result
        return dict(self._result.metrics)


def assert_exact(run: Running, result: dict[str, Any]) -> None:
    """No sample lost or repeated but those of the epoch that was open when the run was stopped."""
    numbers = [int(row["round"]) for row in run.rounds()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert result["samples_lost"] == result["samples_repeated"] == 0
    assert result["status"] == "finished"


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_stopped_worker_is_left_out_within_two_seconds_and_when_it_continues_it_is_gone(cluster, tmp_path):
    run = Running(tmp_path)
    pids = run.steady(3)
    began_s = time.time()
    os.kill(pids["w1"], signal.SIGSTOP)
    formed = run.wait(lambda: [e for e in run.events("view_formed") if e["time_s"] > began_s], "a view without it")
    lost = run.events("worker_lost")
    assert [event["worker"] for event in lost] == ["w1"]
    assert "no sign of life" in lost[0]["reason"]
    assert formed[0]["time_s"] - began_s < 4, lost  # 2 s on a machine that is not shared
    os.kill(pids["w1"], signal.SIGCONT)
    run.wait(lambda: gone(pids["w1"]), "the zombie's end")
    run.wait(lambda: len(run.pids()) == 4, "a replacement")
    result = run.finish()
    assert_exact(run, result)
    assert len(set(run.pids().values())) == 4  # survivors kept their process
    assert result["workers_lost"] == 1


def test_a_loop_that_hangs_in_a_living_process_is_ended_by_the_stragglers_budget(cluster, tmp_path):
    run = Running(tmp_path, timeouts={"straggler": Limit(0, 2, 60)})
    pids = run.steady(3)
    hang = tmp_path / f"hang-{pids['w2']}"
    hang.touch()
    (lost,) = run.wait(lambda: run.events("worker_lost"), "its eviction")
    assert lost["worker"] == "w2"
    assert "kept the others waiting" in lost["reason"]
    run.wait(lambda: gone(pids["w2"]), "its end")
    assert_exact(run, run.finish())
