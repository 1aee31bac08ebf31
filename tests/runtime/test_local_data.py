"""`data.access: local`: real workers that have their own chunks alone."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
import torch
from ray.train import RunConfig, ScalingConfig
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

import raysgd_local
from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer, RedundantChunks
from raysgd_local.errors import InputError

SAMPLES = 640


class Rows(Dataset):
    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return torch.zeros(2), torch.zeros(1)


def loop(config):
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(nn.Linear(2, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    features = torch.arange(2.0 * SAMPLES).view(SAMPLES, 2) / SAMPLES
    data = Rows() if config.get("rows") else TensorDataset(features, features.sum(1, keepdim=True))
    for _ in ctx.epochs(10):
        for x, y in ctx.batches(data, batch_size=8):
            assert torch.equal(y, x.sum(1, keepdim=True))  # the samples that were dealt, and no others' labels
            loss = F.mse_loss(model(x), y)
            loss.backward()
            ctx.step(loss)


def train(tmp_path, copies, chaos, config=None, workers=(1, 3)):
    return LocalSGDTrainer(
        train_loop_per_worker=loop,
        train_loop_config=config or {},
        algorithm=Algorithm(schedule=FixedPeriod(2), placement=RedundantChunks(copies)),
        scaling_config=ScalingConfig(num_workers=workers),
        run_config=RunConfig(name="run", storage_path=str(tmp_path)),
        data_access="local",
        chaos=chaos,
    ).fit()


def events(path, event) -> list[dict]:
    lines = (Path(path) / "events.jsonl").read_text().splitlines()
    return [e for line in lines if (e := json.loads(line))["event"] == event]


@pytest.mark.ray
def test_with_two_copies_a_death_loses_no_data_and_the_copies_are_made_again(cluster, tmp_path):
    result = train(tmp_path, 2, "kill:1@round=20")
    assert result.metrics["workers_lost"] == 1
    assert result.metrics["samples_lost"] == result.metrics["samples_repeated"] == 0
    assert result.metrics["samples"] == 10 * SAMPLES
    assert result.metrics["moved_bytes"] >= SAMPLES // 3 * 12  # a third of the rows had one holder left
    assert result.metrics["chunks_uncovered_max"] == 0


@pytest.mark.ray
@pytest.mark.long
def test_with_one_copy_a_death_right_after_the_stated_round_loses_its_data_and_says_so(cluster, tmp_path):
    result = train(tmp_path, 1, "kill:1@round=20; kill:1@3600s", workers=(1, 2))
    (fired,) = events(result.path, "chaos_fired")
    (lost,) = events(result.path, "worker_lost")
    assert fired["worker"] == lost["worker"]
    assert not psutil.pid_exists(fired["pid"])
    assert [e["fault"] for e in events(result.path, "chaos_unfired")] == ["kill:1@3600s"]
    rounds = result.metrics_dataframe.set_index("round")
    assert (rounds["workers"][20], rounds["workers"][21]) == (2, 1)
    assert events(result.path, "chunks_uncovered") == [{**events(result.path, "chunks_uncovered")[0], "chunks": 8}]
    assert result.metrics["samples_lost"] > 0
    assert result.metrics["samples"] == 10 * SAMPLES - result.metrics["samples_lost"]


@pytest.mark.ray
@pytest.mark.long
def test_who_leaves_gives_its_data_first(cluster, tmp_path):
    result = train(tmp_path, 1, "drain:1@round=20", workers=(1, 2))
    (left,) = events(result.path, "worker_left")
    assert left["worker"] == events(result.path, "chaos_fired")[0]["worker"]
    assert events(result.path, "worker_lost") == []
    assert result.metrics["samples_lost"] == result.metrics["samples_repeated"] == 0
    assert result.metrics["chunks_uncovered_max"] == 0
    assert sum(e["bytes"] for e in events(result.path, "chunks_moved")) == result.metrics["moved_bytes"] > 0


@pytest.mark.ray
def test_data_that_can_not_be_cut_is_refused(cluster, tmp_path):
    with pytest.raises(InputError, match="a torch TensorDataset, if data.access is local"):
        train(tmp_path, 1, "", {"rows": True}, workers=1)
