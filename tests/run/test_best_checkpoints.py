"""`Result.best_checkpoints`, and the warning about a score that no evaluation reports."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from ray.train import CheckpointConfig, RunConfig
from torch.nn import Linear
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from raysgd_local import LocalSGDTrainer, get_context
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.run.best_checkpoints import unreported_score
from raysgd_local.run_files import reader
from raysgd_local.run_files.storage import Storage
from raysgd_local.trainer import _result

NAN = math.nan


def loop(config):
    ctx = get_context()
    model = ctx.prepare_model(Linear(4, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    data = TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
    for epoch in ctx.epochs(len(config["values"])):
        for x, y in ctx.batches(data, batch_size=8):
            loss = mse_loss(model(x), y)
            loss.backward()
            ctx.step(loss)
        value = config["values"][epoch]
        if value is not None:
            ctx.evaluate(lambda m, b, value=value: {config["name"]: value}, data)


def simulated(place: Path, values, order="max", name="accuracy", **keep):
    checkpoints = CheckpointConfig(checkpoint_score_order=order, **keep)
    run = RunConfig(name="run", storage_path=str(place), checkpoint_config=checkpoints)
    config = {"values": values, "name": name}
    return LocalSGDTrainer(train_loop_per_worker=loop, train_loop_config=config, run_config=run).simulate()


def listed(result) -> list[float]:
    return [metrics["accuracy"] for _, metrics in result.best_checkpoints]


@pytest.mark.parametrize(
    ("order", "values", "keep", "best"),
    [
        ("max", [NAN, 0.5, 0.9, 0.6, 0.7], 2, [0.7, 0.9]),
        ("min", [None, 0.5, 0.1, 0.4, 0.3], 2, [0.3, 0.1]),
        ("max", [0.2, 0.9, NAN, 0.3], 1, [0.9]),
        ("max", [0.2, 0.9, 0.3], None, [0.2, 0.3, 0.9]),
        ("max", [NAN, NAN], 1, []),
    ],
)
def test_the_best_are_listed_the_best_last_and_their_files_are_there(tmp_path, order, values, keep, best):
    result = simulated(tmp_path, values, order, num_to_keep=keep, checkpoint_score_attribute="accuracy")
    assert listed(result) == pytest.approx(best)
    assert all(Path(checkpoint.path, "manifest.json").is_file() for checkpoint, _ in result.best_checkpoints)
    if best:
        assert result.get_best_checkpoint("accuracy", order).path == result.best_checkpoints[-1][0].path


def test_without_a_score_the_newest_are_listed_oldest_first(tmp_path):
    result = simulated(tmp_path, [0.9, 0.5, 0.6], num_to_keep=2)
    assert len(result.best_checkpoints) == 2
    assert result.best_checkpoints[-1][0].path == result.checkpoint.path


def test_a_damaged_checkpoint_is_not_listed(tmp_path):
    result = simulated(tmp_path, [0.9, 0.5])
    whole = len(result.best_checkpoints)
    Path(result.checkpoint.path, "manifest.json").write_text("{")
    trainer = LocalSGDTrainer(train_loop_per_worker=loop)
    again = _result({"eval": {}}, Storage.at(result.path), trainer._request)
    assert len(again.best_checkpoints) == whole - 1


def test_a_score_that_no_evaluation_reports_is_recorded_once_and_told_at_the_end(tmp_path):
    result = simulated(tmp_path, [0.9, 0.5, 0.6], num_to_keep=2, checkpoint_score_attribute="acuracy")
    events = [json.loads(line) for line in Path(result.path, "events.jsonl").read_text().splitlines()]
    (event,) = [event for event in events if event["event"] == "checkpoint_unscored"]
    assert (event["score"], event["metrics"]) == ("acuracy", ["accuracy"])
    policy = CheckpointPolicy(score="acuracy")
    storage = Storage.at(result.path)
    assert unreported_score(storage, policy).startswith("no evaluation reported 'acuracy'")
    assert "they reported accuracy" in unreported_score(storage, policy)
    assert unreported_score(storage, CheckpointPolicy(score="accuracy")) == ""
    assert unreported_score(storage, CheckpointPolicy(score=None)) == ""
    assert "there was none" in unreported_score(Storage.at(str(tmp_path / "none")), policy)


def test_metrics_with_the_names_of_columns_and_of_results_break_neither(tmp_path):
    for name in ("epoch", "status", "eval"):
        result = simulated(tmp_path / name, [77.0, NAN], name=name)
        assert result.metrics["status"] == "finished"
        assert result.metrics["epochs"] == 2
        assert set(result.metrics["eval"]) == {name}
        run = reader.load(result.path)
        assert run.evals["epoch"].tolist() == [0, 1]
        assert "NaN" not in Path(result.path, "result.json").read_text()
