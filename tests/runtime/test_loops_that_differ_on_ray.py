"""Real workers whose loops differ by rank, end their process, or return at once: told within seconds, by rank."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch
from ray.train import RunConfig, ScalingConfig
from torch.nn import Linear
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local import LocalSGDTrainer
from raysgd_local.errors import InputError, UserCodeError

pytestmark = pytest.mark.ray


def loop(config):
    if config["how"] == "returns":
        return
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(Linear(4, 2 if config["how"] == "shape" and ctx._shell.place.worker == "w1" else 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    data = TensorDataset(torch.randn(128, 4), torch.randn(128, 1))
    for _ in ctx.epochs(3):
        for x, y in ctx.batches(data, batch_size=8):
            loss = mse_loss(model(x), y)
            loss.backward()
            ctx.step(loss)
        if config["how"] == "exit":
            sys.exit("nothing more to do")
        if config["how"] == "break" and ctx.rank == 0:
            break
        if config["how"] == "evaluate" and ctx.rank == 0:
            ctx.evaluate(lambda m, b: {"mse": mse_loss(m(b[0]), b[1])}, data)


@pytest.fixture
def train(cluster, tmp_path):
    def run(how):
        return LocalSGDTrainer(
            train_loop_per_worker=loop,
            train_loop_config={"how": how},
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(name="run", storage_path=str(tmp_path)),
        ).fit()

    return run


def events(tmp_path: Path, name: str) -> list[dict]:
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


@pytest.mark.long
def test_the_others_go_on_with_the_data_of_a_rank_that_leaves_its_epochs(train, tmp_path):
    metrics = train("break").metrics
    assert (metrics["status"], metrics["epochs"], metrics["samples"]) == ("finished", 3, 3 * 128)
    assert (metrics["samples_lost"], metrics["workers_lost"]) == (0, 0)
    assert len((tmp_path / "run" / "journal.jsonl").read_text().splitlines()) < 100


@pytest.mark.long
def test_an_evaluation_of_the_main_process_alone_is_told_by_rank(train, tmp_path):
    with pytest.raises(
        UserCodeError, match=r"rank 0 evaluates \(ctx\.evaluate\); rank 1 waits for its next epoch"
    ):
        train("evaluate")
    formed, told = events(tmp_path, "view_formed")[0], events(tmp_path, "ranks_disagree")[0]
    assert told["time_s"] - formed["time_s"] < 15
    assert not events(tmp_path, "worker_lost")


def test_a_loop_that_ends_its_process_is_told_as_an_error_of_the_loop(train):
    began = time.monotonic()
    with pytest.raises(UserCodeError, match="SystemExit: nothing more to do"):
        train("exit")
    assert time.monotonic() - began < 60


@pytest.mark.long
def test_a_loop_that_returns_at_once_is_told_what_is_missing(train):
    with pytest.raises(UserCodeError, match=r"(rank [01]|ranks 0, 1):\n.*returned before its first epoch"):
        train("returns")


@pytest.mark.long
def test_a_model_of_another_shape_on_one_worker_is_told_once(train, tmp_path):
    with pytest.raises(InputError, match=r"parameter 'weight': .*\(1, 4\) float32 on rank .*\(2, 4\) float32"):
        train("shape")
