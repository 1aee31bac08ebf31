"""Real worker processes on a Ray cluster."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest
import ray
import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local import Algorithm, EveryStep, FixedPeriod, LocalSGDTrainer
from raysgd_local.errors import InputError, UserCodeError
from raysgd_local.run_files.storage import Storage

pytestmark = pytest.mark.ray


def trainer(loop, tmp_path, workers=2, schedule=None, config=None, failures=0, cpus=1):
    return LocalSGDTrainer(
        train_loop_per_worker=loop,
        train_loop_config=config or {},
        algorithm=Algorithm(schedule=schedule or FixedPeriod(2)),
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": cpus}),
        run_config=RunConfig(
            name="run",
            storage_path=str(tmp_path),
            failure_config=FailureConfig(max_failures=failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )


def events(path) -> list[dict]:
    return [json.loads(line) for line in (Path(path) / "events.jsonl").read_text().splitlines()]


def images(samples: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(samples, 3, 32, 32, generator=generator), torch.arange(samples) % 10)


def resnet_loop(config):
    """A loop as anybody would write it; it logs a digest of the whole state after every step."""
    import gc
    import hashlib

    from torchvision.models import resnet18

    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(resnet18(num_classes=10))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
    done = 0
    for _ in ctx.epochs(1):
        for x, y in ctx.batches(images(44), batch_size=5):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            ctx.step(loss)
            if ctx._shell.state.round > done:
                done = ctx._shell.state.round
                state = b"".join(t.numpy().tobytes() for t in model.state_dict().values())
                ctx.log(digest=hashlib.sha256(state).hexdigest(), frozen=gc.get_freeze_count())


@pytest.mark.long
@pytest.mark.parametrize(
    "schedule", [pytest.param(FixedPeriod(2), id="tau2"), pytest.param(EveryStep(), id="every-step")]
)
def test_an_unmodified_resnet_is_bit_identical_on_all_workers_after_every_round(cluster, tmp_path, schedule):
    result = trainer(resnet_loop, tmp_path, workers=2, schedule=schedule).fit()
    logged = pd.DataFrame([e for e in events(result.path) if e["event"] == "log"])
    by_round = logged.groupby("round")["digest"]
    assert by_round.size().max() == 2
    assert (by_round.nunique() == 1).all()
    assert (logged["frozen"] > 100_000).all()  # what was imported is no matter of the garbage collector
    assert result.metrics["samples_lost"] == result.metrics["samples_repeated"] == 0


def failing_loop(config):
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(nn.Linear(2, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    data = TensorDataset(torch.randn(64, 2), torch.randn(64, 1))
    for epoch in ctx.epochs(3):
        for x, y in ctx.batches(data, batch_size=8):
            if epoch == 1 and ctx.rank in config["ranks"]:
                raise ValueError("the user's own mistake")
            loss = F.mse_loss(model(x), y)
            loss.backward()
            ctx.step(loss)


def ours(cluster: str) -> list[psutil.Process]:
    """Processes of this package's actors in the cluster, told by their raylet; others may run on this machine."""
    port = cluster.rpartition(":")[2]
    found = []
    for raylet in psutil.process_iter(["name", "cmdline"]):
        if raylet.info["name"] == "raylet" and any(word.endswith(f":{port}") for word in raylet.info["cmdline"]):
            found += [
                child for child in raylet.children() if child.name().startswith(("ray::Worker", "ray::Driver"))
            ]
    return found


@pytest.mark.long
@pytest.mark.parametrize("ranks", [(0, 1), (1,)])
def test_an_error_in_user_code_ends_the_run_with_its_traceback_once_and_its_ranks(cluster, tmp_path, ranks):
    with pytest.raises(UserCodeError, match="the user's own mistake") as caught:
        trainer(failing_loop, tmp_path, workers=2, config={"ranks": ranks}).fit()
    assert caught.value.ranks == ranks
    assert caught.value.traceback.count("Traceback") == 1
    assert "raysgd_local/runtime" not in caught.value.traceback
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"
    _, alive = psutil.wait_procs(ours(cluster), timeout=20)
    assert alive == []
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]


def killed_loop(config):
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(nn.Linear(2, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
    data = TensorDataset(torch.randn(600, 2), torch.randn(600, 1))
    for epoch in ctx.epochs(6):
        for x, y in ctx.batches(data, batch_size=8):
            loss = F.mse_loss(model(x), y)
            loss.backward()
            ctx.step(loss)
            marker = Path(config["marker"])
            if epoch == 2 and ctx.rank == config["rank"] and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        ctx.evaluate(lambda model, batch: F.mse_loss(model(batch[0]), batch[1]), data)


def test_a_killed_first_worker_costs_no_sample_and_no_survivors_process(cluster, tmp_path):
    config = {"marker": str(tmp_path / "killed"), "rank": 0}
    result = trainer(killed_loop, tmp_path, workers=3, config=config).fit()
    assert (tmp_path / "killed").exists()
    assert result.metrics["workers_lost"] == 1
    assert result.metrics["samples"] == 6 * 600
    assert result.metrics["samples_lost"] == result.metrics["samples_repeated"] == 0
    rounds = result.metrics_dataframe["round"]
    assert rounds.tolist() == list(range(1, len(rounds) + 1))
    joined = [e["pid"] for e in events(result.path) if e["event"] == "worker_joined"]
    assert len(joined) == len(set(joined)) == 4  # three and a replacement: survivors kept their process


def test_more_workers_than_the_cluster_can_have_is_told_after_the_stated_wait(cluster, tmp_path):
    run = trainer(failing_loop, tmp_path, workers=1000, cpus=9)  # none of them starts
    settings = run._request.settings
    timeouts = replace(settings.timeouts, start_s=2)
    run._request = replace(run._request, settings=replace(settings, timeouts=timeouts))
    with pytest.raises(InputError, match=r"workers.min: 1000.*within 2 s \(workers.start_timeout_s\)"):
        run.fit()
    assert not (tmp_path / "run").exists()


def test_a_worker_that_does_not_share_the_storage_is_told(cluster, tmp_path, monkeypatch):
    """The driver's probe is taken away, as it is for a worker on a machine with another disk."""
    run = trainer(failing_loop, tmp_path)
    monkeypatch.setattr("raysgd_local.runtime.supervisor.launch", launch_elsewhere)
    with pytest.raises(InputError, match=r"storage: .*a path that the driver and all workers share"):
        run.fit()
    assert not (tmp_path / "run").exists()


def launch_elsewhere(plan):
    from raysgd_local.runtime.driver import launch

    elsewhere = Storage.at(f"{plan.storage.root}-of-the-workers")
    return launch(replace(plan, spec=replace(plan.spec, storage=elsewhere)))


def test_a_run_directory_that_exists_is_refused(cluster, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("{}")
    with pytest.raises(InputError, match="name"):
        trainer(failing_loop, tmp_path).fit()
    assert ray.is_initialized()
