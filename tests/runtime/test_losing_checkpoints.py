"""Checkpoints that can't be written or loaded, and deaths while they are: real shells and files."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings, Timeouts
from raysgd_local.control.replicated.program import Program
from raysgd_local.errors import CheckpointError, RunLostError
from raysgd_local.run.resume import to_resume
from raysgd_local.run_files.checkpoint_survey import finished, survey
from raysgd_local.run_files.storage import Storage
from raysgd_local.runtime.driver import Plan
from raysgd_local.runtime.fault_effects import damage_newest
from raysgd_local.runtime.restarts import Restarts, planned_again

DATA = TensorDataset(torch.randn(32, 3), torch.randn(32, 1))
EVERY_EPOCH = CheckpointPolicy(every_epochs=1, keep=None)


class Own:
    """State of the user's, whose copying can be made to go wrong."""

    def __init__(self, copying=lambda: None):
        self.copying = copying

    def state_dict(self):
        self.copying()
        return {}

    def load_state_dict(self, state):
        """There is none."""


def train(epochs, own=None, after_epoch=lambda epoch: None):
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(nn.Linear(3, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.05))
    ctx.register("own", own or Own())
    for epoch in ctx.epochs(epochs):
        for x, y in ctx.batches(DATA, batch_size=4):
            loss = F.mse_loss(model(x), y)
            loss.backward()
            ctx.step(loss)
        after_epoch(epoch)
    return ctx


def told(done, event):
    lines = (done.directory / "events.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == event]


def assert_whole(done, epochs):
    assert done.result["status"] == "finished", done.outcome.finish
    assert done.result["samples"] == epochs * len(DATA)
    assert done.result["samples_lost"] == done.result["samples_repeated"] == 0
    found = survey(Storage.at(str(done.directory)))
    assert found.manifest["replicated"]["round"] == done.result["rounds"]
    assert found.damaged == {}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_dies_while_the_last_checkpoint_is_copied_costs_neither_that_nor_the_model(
    train_in_threads, killed, rank
):
    over = []

    def loop():
        ctx = raysgd_local.get_context()

        def copying():
            if len(over) == 3 and ctx.rank == rank and ctx._shell.place.worker == f"w{rank}":
                raise killed

        train(2, Own(copying))
        over.append(ctx.rank)

    done = train_in_threads(loop, workers=3)
    assert_whole(done, epochs=2)
    assert [event["worker"] for event in told(done, "worker_lost")] == [f"w{rank}"]
    (failed,) = told(done, "checkpoint_failed")
    assert failed["reason"] == f"w{rank} is gone"
    ours = torch.load(done.directory / "model.pt", weights_only=True)["weight"]
    assert torch.equal(ours, done.group.shells["w2"].replica.models[0].weight)
    assert [path.name for path in (done.directory / "checkpoints").iterdir()] == ["000002"]


def test_a_disk_that_takes_no_checkpoints_for_a_while_costs_those_and_the_last_one_is_written_in_the_end(
    train_in_threads, tmp_path
):
    place = tmp_path / "run" / "checkpoints"

    def full(epoch):
        if epoch == 0:
            place.parent.mkdir(exist_ok=True)
            place.touch()  # nothing can be written below it

    freed = []

    class Freeing(Own):
        """The disk takes files again when the last checkpoint has failed once."""

        def state_dict(self):
            if freed and freed[0].member.copied and place.is_file():
                place.unlink()
            return {}

    def loop_with_a_full_disk():
        ctx = train(4, Freeing(), after_epoch=full)
        freed.append(ctx._shell)

    done = train_in_threads(loop_with_a_full_disk, workers=1, policy=EVERY_EPOCH)
    assert_whole(done, epochs=4)
    assert done.result["checkpoints_failed"] >= 1
    assert (done.directory / "model.pt").exists()


def test_without_a_place_for_the_last_checkpoint_a_run_fails_and_says_so(train_in_threads, tmp_path):
    def full(epoch):
        (tmp_path / "run" / "checkpoints").touch()

    settings = {"timeouts": Timeouts(finish_s=1.0)}
    done = train_in_threads(lambda: train(1, after_epoch=full), workers=1, settings=settings)
    assert done.outcome.finish.status == "lost"
    assert "the last checkpoint was not written within 1 s" in done.result["reason"]
    assert done.result["status"] == "failed"


def newest(directory: Path, at_least: int) -> Path:
    """The newest finished checkpoint, once there are so many."""
    storage, end = Storage.at(str(directory)), time.monotonic() + 30
    while len(names := finished(storage)) < at_least:
        assert time.monotonic() < end, names
        time.sleep(0.01)
    return directory / "checkpoints" / names[-1]


def damage(checkpoint: Path) -> None:
    """As `--chaos damage` does."""
    damage_newest(Storage.at(str(checkpoint.parents[1])))


def test_if_all_who_have_the_model_die_and_the_newest_checkpoint_is_damaged_the_one_before_is_taken(
    train_in_threads, tmp_path, killed
):
    lives = []

    def loop():
        lives.append(raysgd_local.get_context()._shell.place.worker)

        def spoil(epoch):
            written = newest(tmp_path / "run", at_least=epoch) if epoch and len(lives) == 1 else None
            if written is not None and epoch == 2:
                lives.append(written.name)
                damage(written)
                raise killed

        train(5, after_epoch=spoil)

    done = train_in_threads(loop, workers=1, policy=EVERY_EPOCH)
    assert done.result["status"] == "finished", done.outcome.finish
    assert done.result["samples"] == 5 * len(DATA)
    (damaged,) = told(done, "checkpoint_damaged")
    assert damaged["checkpoint"] == lives[1]
    assert done.result["checkpoints_damaged"] == 1
    resumed = [event["checkpoint"] for event in told(done, "resumed")]
    assert resumed == [lives[1], f"{int(lives[1]) - 1:06d}"]
    numbers = [int(row["round"]) for row in done.rows()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_if_no_checkpoint_can_be_loaded_the_run_fails_rather_than_begin_with_fresh_weights(
    train_in_threads, tmp_path, killed
):
    def loop():
        def spoil(epoch):
            if epoch == 1:
                damage(newest(tmp_path / "run", at_least=1))
                raise killed

        train(4, after_epoch=spoil)

    done = train_in_threads(loop, workers=1, policy=EVERY_EPOCH)
    assert done.outcome.finish.status == "lost"
    assert "no checkpoint can be loaded" in done.result["reason"]


def test_neither_a_driver_nor_a_user_goes_on_with_fresh_weights_where_every_checkpoint_is_damaged(
    train_in_threads, tmp_path
):
    train_in_threads(lambda: train(1), workers=1)
    storage = Storage.at(str(tmp_path / "run"))
    damage(newest(tmp_path / "run", at_least=1))
    with pytest.raises(CheckpointError, match="no finished, undamaged checkpoint"):
        to_resume(storage, "auto", FixedPeriod(2))
    plan = Plan(Settings(Program(FixedPeriod(2)), 1, 1), None, None, storage, None)
    with pytest.raises(RunLostError, match="every checkpoint is damaged"):
        planned_again(plan, Restarts(), "killed")


def test_going_back_to_an_older_checkpoint_undoes_the_newer_ones(train_in_threads, tmp_path):
    def loop():
        train(3, after_epoch=lambda epoch: newest(tmp_path / "run", at_least=epoch) if epoch else None)

    train_in_threads(loop, workers=1, policy=EVERY_EPOCH)
    first, *later = finished(Storage.at(str(tmp_path / "run")))
    asked = str(tmp_path / "run" / "checkpoints" / first)
    manifest = to_resume(Storage.at(str(tmp_path / "run")), asked, FixedPeriod(2)).manifest
    assert later
    done = train_in_threads(lambda: train(2), workers=1, resume=manifest)
    assert_whole(done, epochs=2)
    assert finished(Storage.at(str(tmp_path / "run"))) == [first, later[0]]


def test_a_run_that_is_begun_anew_in_its_directory_for_want_of_a_checkpoint_begins_with_empty_tables(
    train_in_threads, tmp_path
):
    train_in_threads(lambda: train(2), workers=1, settings={"checkpoints": CheckpointPolicy(None, last=False)})
    done = train_in_threads(lambda: train(2), workers=1)
    assert_whole(done, epochs=2)
    assert [int(row["round"]) for row in done.rows()] == list(range(1, done.result["rounds"] + 1))
