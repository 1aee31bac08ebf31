"""Loops that are not the same on all ranks, or that end their process: with the real shells, in virtual time."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local import Algorithm, EveryStep, FixedPeriod, LocalSGDTrainer
from raysgd_local.errors import InputError, RunLostError, UserCodeError

DATA = TensorDataset(torch.arange(64.0).view(64, 1), torch.zeros(64, 1))


def by_the_way(ctx, how, epoch):
    """What this test's loop does at the end of an epoch that others' don't; true if it leaves `ctx.epochs`."""
    if how == "break" and ctx.rank == 0:
        return True
    if how == "evaluate" and ctx.rank == 0:
        ctx.evaluate(lambda model, batch: mse_loss(model(batch[0]), batch[1]), DATA)
    if how == "break while others evaluate":
        if ctx.rank == 0:
            return True
        ctx.evaluate(lambda model, batch: mse_loss(model(batch[0]), batch[1]), DATA)
    if how == "exit" and epoch == 1:
        sys.exit("nothing more to do")
    if how == "generator exit" and epoch == 1:
        raise GeneratorExit
    if how == "stop" and epoch == 1:
        ctx.evaluate(lambda model, batch: mse_loss(model(batch[0]), batch[1]), DATA)
        ctx.stop()
    if how == "one stops" and epoch == 1 and ctx.rank == 0:
        ctx.stop()
    return False


def loop(config):
    how = config["how"]
    if how == "returns":
        return
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(nn.Linear(1, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=1e-5))
    for epoch in ctx.epochs(3):
        batches = 0
        for x, y in ctx.batches(DATA, batch_size=4):
            loss = mse_loss(model(x), y)
            loss.backward()
            ctx.step(loss)
            batches += 1
        assert batches > 0  # as loops rely on that show a mean loss
        if by_the_way(ctx, how, epoch):
            break


@pytest.fixture
def simulated(tmp_path):
    def run(how, workers=2, schedule=None, failures=0):
        trainer = LocalSGDTrainer(
            train_loop_per_worker=loop,
            train_loop_config={"how": how},
            algorithm=Algorithm(schedule or FixedPeriod(3)),
            scaling_config=ScalingConfig(num_workers=workers),
            run_config=RunConfig(
                name="run", storage_path=str(tmp_path), failure_config=FailureConfig(max_failures=failures)
            ),
        )
        return trainer.simulate().metrics

    return run


def lines(tmp_path, event):
    found = map(json.loads, (tmp_path / "run" / "events.jsonl").read_text().splitlines())
    return [line for line in found if line["event"] == event]


@pytest.mark.parametrize("schedule", [FixedPeriod(3), EveryStep()], ids=["local", "every-step"])
def test_the_others_take_the_data_of_a_rank_whose_loop_ends_early(simulated, tmp_path, schedule):
    metrics = simulated("break", workers=3, schedule=schedule)
    assert (metrics["status"], metrics["epochs"], metrics["samples"]) == ("finished", 3, 3 * 64)
    assert (metrics["samples_lost"], metrics["samples_repeated"], metrics["workers_lost"]) == (0, 0, 0)
    assert len((tmp_path / "run" / "journal.jsonl").read_text().splitlines()) < 100
    assert set(pd.read_csv(tmp_path / "run" / "rounds.csv")["epoch"]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("how", "other"),
    [
        ("evaluate", "rank 1 waits for its next epoch (ctx.epochs)"),
        ("break while others evaluate", "rank 0 has ended its loop"),
    ],
)
def test_an_evaluation_of_some_ranks_alone_is_told_by_rank_and_nobody_is_taken_for_dead(
    simulated, tmp_path, how, other
):
    with pytest.raises(UserCodeError, match=r"evaluates \(ctx\.evaluate\)") as error:
        simulated(how, failures=3)
    assert other in str(error.value)
    assert error.value.ranks == (0, 1)
    assert not lines(tmp_path, "worker_lost")
    (told,) = lines(tmp_path, "ranks_disagree")
    assert told["time_s"] < 10


@pytest.mark.parametrize(
    ("how", "words"),
    [("exit", "SystemExit: nothing more to do"), ("generator exit", "GeneratorExit")],
)
def test_a_loop_that_ends_its_process_is_an_error_of_the_loop(simulated, tmp_path, how, words):
    with pytest.raises(UserCodeError, match=words):
        simulated(how)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"


def test_a_loop_that_always_ends_its_process_ends_the_run_though_failures_are_allowed(simulated):
    with pytest.raises((UserCodeError, RunLostError), match="nothing more to do"):
        simulated("exit", failures=1)


def test_a_loop_that_returns_before_its_first_epoch_is_told_what_is_missing(simulated):
    with pytest.raises(UserCodeError, match="returned before its first epoch.*ctx.epochs"):
        simulated("returns")


def test_the_model_that_all_stop_at_is_the_one_that_was_evaluated(simulated, tmp_path):
    metrics = simulated("stop")
    assert (metrics["status"], metrics["reason"]) == ("finished", "stopped by the training loop")
    assert (metrics["epochs"], metrics["samples"]) == (2, 2 * 64)
    judged = pd.read_csv(tmp_path / "run" / "evals.csv")["round"].iloc[-1]
    assert judged == metrics["rounds"]


def test_where_one_rank_alone_asks_for_the_end_all_train_one_more_round(simulated):
    metrics = simulated("one stops", schedule=FixedPeriod(2))
    assert (metrics["status"], metrics["reason"]) == ("finished", "stopped by the training loop")
    assert metrics["samples"] == 2 * 64 + 2 * 2 * 4


# What members prepare must be alike.


def preparing(config):
    ctx = raysgd_local.get_context()
    odd = ctx._shell.place.worker == "w1"
    what = config["odd"] if odd else ""
    model = nn.Sequential(nn.Linear(1, 3 if what == "shape" else 2), nn.Linear(3 if what == "shape" else 2, 1))
    if what == "dtype":
        model = model.double()
    if what == "frozen":
        model[0].requires_grad_(False)
    if what == "buffer":
        model.register_buffer("seen", torch.zeros(3))
    if what == "name":
        model.extra = nn.Linear(1, 1)
    model = ctx.prepare_model(model)
    kind = torch.optim.AdamW if what == "optimizer" else torch.optim.SGD
    ctx.prepare_optimizer(kind(model.parameters(), lr=0.01))
    if what == "registered":
        ctx.register("mine", nn.Linear(1, 1))
    for _ in ctx.epochs(1):
        for x, _y in ctx.batches(DATA, batch_size=4):
            loss = model(x.to(model[0].weight.dtype)).mean()
            loss.backward()
            ctx.step(loss)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ("shape", r"parameter '0.weight': '\(2, 1\) float32 on rank 0; \(3, 1\) float32 on rank 1'"),
        ("dtype", r"parameter '0.weight': '\(2, 1\) float32 on rank 0; \(2, 1\) float64 on rank 1'"),
        ("frozen", r"parameter '0.weight': '.*float32 on rank 0; .*float32, frozen on rank 1'"),
        ("buffer", r"buffer 'seen': 'missing on rank 0; \(3,\) float32 on rank 1'"),
        ("name", r"parameter 'extra.weight': 'missing on rank 0; \(1, 1\) float32 on rank 1'"),
        ("optimizer", r"optimizer 0: 'SGD with groups of \[4\] parameters on rank 0; AdamW with"),
        ("registered", r"ctx.register\('mine'\): 'missing on rank 0; Linear on rank 1'"),
    ],
)
def test_what_members_prepare_differently_is_told_once_by_name_and_rank(tmp_path, odd, words):
    trainer = LocalSGDTrainer(
        train_loop_per_worker=preparing,
        train_loop_config={"odd": odd},
        algorithm=Algorithm(FixedPeriod(3)),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="run", storage_path=str(tmp_path)),
    )
    with pytest.raises(InputError, match=words):
        trainer.simulate()
    assert not Path(tmp_path / "run").exists()
