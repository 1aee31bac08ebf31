"""Checkpoints: exact resumption, going on with other members, what is kept, what is damaged."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from itertools import chain

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Elastic
from raysgd_local.algorithms.compression import Half, Int8, RandomK, TopK
from raysgd_local.algorithms.outer import BlockMomentum, OuterOptimizer, SlowMo
from raysgd_local.algorithms.schedules import AtEpoch, Delayed, EveryStep, FixedPeriod, Once, Switch
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.control.replicated.endings import resumed
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.run_files.checkpoint_survey import finished, survey
from raysgd_local.run_files.storage import Storage


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(90, 5, generator=generator)
    return TensorDataset(x, x @ torch.randn(5, 2, generator=generator))


torch.manual_seed(0)
INITIAL = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def loop(epochs: int):
    def train():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(copy.deepcopy(INITIAL))
        ctx.prepare_optimizer(torch.optim.AdamW(model.parameters(), lr=0.01))
        ctx.prepare_scheduler(lambda epochs: 0.5**epochs)
        for _ in ctx.epochs(epochs):
            for x, y in ctx.batches(data(), batch_size=7):
                loss = F.mse_loss(model(x), y)
                loss.backward()
                ctx.step(loss)
            ctx.evaluate(error, data())

    return train


def error(model, batch):
    return F.mse_loss(model(batch[0]), batch[1], reduction="none").mean(1)


EVERY_EPOCH = CheckpointPolicy(every_epochs=1, keep=None)
UNTIMED = ("round", "workers", "tau", "scope", "steps", "samples", "epoch", "wire_bytes", "loss", "lr")


def untimed(rows):
    return [{name: row[name] for name in UNTIMED} for row in rows]


ALGORITHMS = [
    Algorithm(FixedPeriod(3)),
    Algorithm(EveryStep()),
    Algorithm(Once()),
    Algorithm(Delayed(FixedPeriod(3), 2)),
    Algorithm(FixedPeriod(3), averaging=Elastic()),
    Algorithm(FixedPeriod(3), outer=SlowMo(0.5)),
    Algorithm(FixedPeriod(3), outer=OuterOptimizer("Adam", 0.01)),
    Algorithm(Switch(EveryStep(), FixedPeriod(3), AtEpoch(1)), outer=BlockMomentum()),
    Algorithm(FixedPeriod(3), compression=TopK(0.1), outer=SlowMo(0.5)),
    Algorithm(EveryStep(), compression=Int8()),
    Algorithm(FixedPeriod(3), compression=RandomK(0.2)),
    Algorithm(FixedPeriod(3), averaging=Elastic(), compression=Half()),
]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=str)
def test_a_resumed_run_is_bit_identical_to_one_that_was_not_stopped(train_in_threads, tmp_path, algorithm):
    how = {"workers": 2, "schedule": algorithm.schedule, "spec": {"algorithm": algorithm}, "policy": EVERY_EPOCH}
    whole = train_in_threads(loop(4), name="whole", **how)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    manifest = cut_back(tmp_path / "again")
    again = train_in_threads(loop(4), name="again", resume=manifest, **how)
    assert again.result["status"] == "finished", again.outcome.finish
    assert untimed(again.rows()) == untimed(whole.rows())
    for ours, theirs in zip(chain(*again.models()), chain(*whole.models()), strict=True):
        assert torch.equal(ours, theirs)
    final = [torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("whole", "again")]
    assert all(torch.equal(final[0][name], final[1][name]) for name in final[0])
    assert {row["incarnation"] for row in again.rows()} == {"1", "2"}


def cut_back(run) -> dict:
    """Leave the run as if it had been killed after its first checkpoint (in a fast run not every epoch has one)."""
    first, *later = sorted((run / "checkpoints").iterdir())
    for folder in later:
        shutil.rmtree(folder)
    manifest = json.loads((first / "manifest.json").read_text())
    assert 0 < manifest["replicated"]["round"] < len((run / "rounds.csv").read_text().splitlines()) - 1
    return manifest


def test_with_other_members_it_goes_on_and_the_ledger_stays_exact(train_in_threads, tmp_path):
    train_in_threads(loop(3), workers=2, name="run", policy=EVERY_EPOCH)
    manifest = cut_back(tmp_path / "run")
    done = train_in_threads(loop(3), workers=3, name="run", policy=EVERY_EPOCH, resume=manifest)
    assert done.result["status"] == "finished", done.outcome.finish
    assert done.result["samples"] == 3 * 90
    assert done.result["samples_lost"] == done.result["samples_repeated"] == 0
    assert [int(row["round"]) for row in done.rows()] == list(range(1, len(done.rows()) + 1))


def manifest_of(run) -> dict:
    return json.loads(max((run / "checkpoints").glob("*/manifest.json")).read_text())


def test_a_run_that_ended_at_a_limit_goes_on_under_a_wider_one_and_not_under_the_same(train_in_threads, tmp_path):
    how = {"name": "run", "policy": EVERY_EPOCH}
    first = train_in_threads(loop(99), program={"max_steps": 20}, **how)
    same = train_in_threads(loop(99), program={"max_steps": 20}, resume=manifest_of(tmp_path / "run"), **how)
    assert 20 <= first.result["steps"] == same.result["steps"] < 40
    wider = train_in_threads(loop(99), program={"max_steps": 40}, resume=manifest_of(tmp_path / "run"), **how)
    assert wider.result["steps"] >= 40
    assert wider.result["status"] == "finished"
    assert wider.result["samples_lost"] == wider.result["samples_repeated"] == 0


def test_a_goal_that_was_reached_is_reached_on_resume_and_a_farther_one_is_not():
    program = Program(FixedPeriod(2), target=("loss", 0.5))
    state = Replicated(FixedPeriod(2).init(), metrics=(("loss", 0.4),), stopped="loss reached 0.5")
    assert resumed(state, program) == state
    assert resumed(state, replace(program, target=("loss", 0.3))).stopped == ""
    assert resumed(replace(state, diverged=True, stopped="diverged"), program).stopped == "diverged"


def test_a_damaged_newest_checkpoint_is_passed_over(train_in_threads, tmp_path):
    train_in_threads(loop(2), workers=2, name="run", policy=EVERY_EPOCH)
    storage = Storage.at(str(tmp_path / "run"))
    names = finished(storage)
    shard = tmp_path / "run" / "checkpoints" / names[-1] / "rank-1.pt"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    found = survey(storage)
    assert (found.manifest["name"], list(found.damaged)) == (names[-2], [names[-1]])
    assert "its SHA-256 is not the manifest's" in found.damaged[names[-1]]


def test_only_as_many_checkpoints_are_kept_as_asked_and_the_model_is_a_plain_state_dict(
    train_in_threads, tmp_path
):
    done = train_in_threads(loop(4), workers=2, name="run", policy=CheckpointPolicy(keep=2))
    assert len(finished(Storage.at(str(tmp_path / "run")))) == 2
    model = copy.deepcopy(INITIAL)
    model.load_state_dict(torch.load(tmp_path / "run" / "model.pt", weights_only=True))
    ours_and_theirs = zip((*model.parameters(), *model.buffers()), done.models()[0], strict=True)
    for ours, theirs in ours_and_theirs:
        assert torch.equal(ours, theirs)


def test_without_everyones_local_state_one_shard_is_written(train_in_threads, tmp_path):
    train_in_threads(loop(2), workers=3, name="run", policy=CheckpointPolicy(everyone=False))
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    assert sorted(p.name for p in newest.iterdir()) == ["manifest.json", "rank-0.pt"]
