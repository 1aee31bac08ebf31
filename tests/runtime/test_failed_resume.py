"""A resume that fails takes nothing away, and says why; one that goes on knows all of the run's checkpoints."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.outer import SlowMo
from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.controller.settings import CheckpointPolicy, Timeouts
from raysgd_local.run.resume import to_resume
from raysgd_local.run_files.checkpoint_survey import finished
from raysgd_local.run_files.storage import Storage
from raysgd_local.runtime.fault_effects import damage_newest

DATA = TensorDataset(torch.randn(32, 3), torch.randn(32, 1))
EVERY_EPOCH = CheckpointPolicy(every_epochs=1, keep=None)
SCHEDULE = FixedPeriod(2)


def linear() -> nn.Module:
    return nn.Linear(3, 1)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def train(epochs, make=linear, optimizer=sgd, before=lambda: None, after_epoch=lambda epoch: None):
    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(make())
        ctx.prepare_optimizer(optimizer(model.parameters()))
        for epoch in ctx.epochs(epochs):
            before()
            for x, y in ctx.batches(DATA, batch_size=4):
                loss = F.mse_loss(model(x).sum(1, keepdim=True), y)
                loss.backward()
                ctx.step(loss)
            after_epoch(epoch)

    return loop


def published(run: Path):
    """Wait at an epoch's end for the checkpoint of the one before."""

    def wait(epoch: int) -> None:
        end = time.monotonic() + 60
        while epoch and len(finished(Storage.at(str(run)))) < epoch:
            assert time.monotonic() < end
            time.sleep(0.01)

    return wait


@pytest.fixture
def run(train_in_threads, tmp_path) -> Path:
    """A run that ended, with at least three checkpoints."""
    path = tmp_path / "run"
    train_in_threads(train(4, after_epoch=published(path)), workers=2, policy=EVERY_EPOCH)
    (path / "config.yaml").write_text("first\n")
    assert len(finished(Storage.at(str(path)))) >= 3
    return path


def files(run: Path) -> dict[str, bytes]:
    """All that a failed resume leaves as it was: events and the journal tell of it."""
    told = ("events.jsonl", "journal.jsonl")
    return {str(p): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name not in told}


def resume(train_in_threads, run: Path, loop, resume: str = "auto", **options):
    found = to_resume(Storage.at(str(run)), resume, SCHEDULE)
    plan = {"older": found.older, "damaged": found.passed_over, "again": True, "config": "second\n"}
    return train_in_threads(loop, workers=2, resume=found.manifest, plan=plan, policy=EVERY_EPOCH, **options)


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))


OTHERS = [
    (lambda: nn.Linear(3, 5), sgd, "weight has the shape (1, 3) in the checkpoint, and (5, 3) in this run"),
    (two_layers, sgd, "the model has weight in the checkpoint, and not in this run"),
    (linear, torch.optim.AdamW, "optimizer 0 is SGD in the checkpoint, and AdamW in this run"),
    (
        linear,
        lambda p: sgd([{"params": [q]} for q in p]),
        "groups of [2] parameters in the checkpoint, and of [1, 1]",
    ),
]


@pytest.mark.parametrize(("make", "optimizer", "told"), OTHERS)
@pytest.mark.parametrize("asked", ["auto", "000001"])
def test_another_model_or_optimizer_is_told_and_leaves_the_run_as_it_was(
    train_in_threads, run, make, optimizer, told, asked
):
    before = files(run)
    done = resume(train_in_threads, run, train(6, make, optimizer), asked)
    refused = done.outcome.refused
    assert refused is not None
    assert refused.exit_status == 2
    assert refused.field == "resume"
    assert told in str(refused)
    assert "weights_only" not in str(refused)
    assert files(run) == before


def test_an_optimizer_of_an_older_checkpoint_is_known_by_its_options(train_in_threads, run):
    from raysgd_local.training.replica import fit
    from raysgd_local.training.replica.replica import Prepared, Replica

    model = linear()
    ours = Replica([model], [Prepared(torch.optim.AdamW(model.parameters()), None, [0.1])])
    theirs = {"optimizers": [sgd(model.parameters()).state_dict()]}
    with pytest.raises(raysgd_local.InputError, match="dampening, momentum, nesterov in the checkpoint"):
        fit.check_optimizers("000001", ours, theirs)
    same = {"optimizers": [torch.optim.AdamW(model.parameters()).state_dict()]}
    del same["optimizers"][0]["param_groups"][0]["fused"]  # of a version of torch without it
    fit.check_optimizers("000001", ours, same)


def test_another_method_s_state_is_told(train_in_threads, tmp_path):
    policy, outer = CheckpointPolicy(everyone=True), {"algorithm": Algorithm(SCHEDULE, outer=SlowMo(0.5))}
    train_in_threads(train(2), workers=2, policy=policy, spec=outer)
    done = resume(train_in_threads, tmp_path / "run", train(3, two_layers), spec=outer)
    assert "a checkpoint of the same model, optimizers and method" in str(done.outcome.refused)


def test_user_code_that_fails_before_the_run_goes_on_leaves_it_as_it_was(train_in_threads, run):
    def fail():
        raise ValueError("of the user's")

    before = files(run)
    done = resume(train_in_threads, run, train(6, before=fail), "000001")
    assert "of the user's" in done.outcome.finish.error
    assert files(run) == before


def test_a_resume_that_goes_on_writes_its_configuration_and_removes_what_came_after(train_in_threads, run):
    names = finished(Storage.at(str(run)))
    rounds = len((run / "rounds.csv").read_text().splitlines()) - 1
    done = resume(train_in_threads, run, train(2), "000001")
    assert done.result["status"] == "finished", done.outcome.finish
    assert (run / "config.yaml").read_text() == "second\n"
    assert (
        len(done.rows())
        == done.result["rounds"]
        == json.loads((run / "result.json").read_text())["rounds"]
        < rounds
    )
    assert len(finished(Storage.at(str(run)))) < len(names)


def test_a_resume_prunes_the_checkpoints_of_the_lives_before(train_in_threads, run):
    found = to_resume(Storage.at(str(run)), "auto", SCHEDULE)
    plan = {"older": found.older, "again": True}
    train_in_threads(
        train(6), workers=2, resume=found.manifest, plan=plan, policy=CheckpointPolicy(every_epochs=1, keep=2)
    )
    assert len(finished(Storage.at(str(run)))) == 2


def test_a_checkpoint_that_is_damaged_after_the_resume_was_checked_leads_to_the_one_before(train_in_threads, run):
    storage = Storage.at(str(run))
    found = to_resume(storage, "auto", SCHEDULE)
    damage_newest(storage)
    plan = {"older": found.older, "again": True}
    done = train_in_threads(train(6), workers=2, resume=found.manifest, plan=plan, policy=EVERY_EPOCH)
    assert done.result["status"] == "finished", done.outcome.finish
    resumed = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    names = [event["checkpoint"] for event in resumed if event["event"] == "resumed"]
    assert names == [found.manifest["name"], found.older[-1]["name"]]


def test_the_name_of_a_damaged_checkpoint_is_not_given_again(train_in_threads, run):
    storage = Storage.at(str(run))
    damage_newest(storage)
    damaged = finished(storage)[-1]
    before = files(run / "checkpoints" / damaged)
    done = resume(train_in_threads, run, train(6))
    assert done.result["status"] == "finished", done.outcome.finish
    assert files(run / "checkpoints" / damaged) == before
    assert finished(storage)[-1] > damaged


def test_a_replacement_that_does_not_see_the_storage_does_not_end_the_run(train_in_threads, tmp_path, killed):
    lives = []

    def loop():
        lives.append(raysgd_local.get_context()._shell.place.worker)
        if len(lives) == 3:
            raise raysgd_local.InputError("storage", "run", "a path that the driver and all workers share")
        train(3, after_epoch=die)()

    def die(epoch):
        if epoch == 1 and len(lives) == 2 and raysgd_local.get_context()._shell.place.worker == "w1":
            raise killed

    done = train_in_threads(loop, workers=2)
    assert done.result["status"] == "finished", done.outcome.finish
    assert len(lives) >= 3
    assert done.result["storage_failures"] == 1


def test_parts_of_a_checkpoint_are_not_written_without_the_claim(train_in_threads, tmp_path):
    (tmp_path / "run" / "lease").mkdir(parents=True)
    claim = tmp_path / "run" / "lease" / "mine.json"
    claim.write_text("{}")

    def lose(epoch):
        if epoch == 1:
            published(tmp_path / "run")(epoch)
            claim.unlink()

    settings = {"timeouts": Timeouts(finish_s=0.5)}
    spec = {"claim": "lease/mine.json"}
    done = train_in_threads(train(3, after_epoch=lose), 1, policy=EVERY_EPOCH, spec=spec, settings=settings)
    assert done.outcome.finish.status == "lost"
    told = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    assert any("another command has taken the run over" in event.get("reason", "") for event in told)
    assert not (tmp_path / "run/model.pt").exists()
