"""Schedulers of torch and Hugging Face on two workers whose lists differ, with a death, a joiner and a resume.

Every step is measured: SGD on a gradient of 1 goes as far as the rate that was applied.
"""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
import torch
from rate_schedules import PER_EPOCH, PER_STEP
from torch import nn
from torch.optim import lr_scheduler as schedulers
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local.algorithms.schedules import EveryStep, FixedPeriod
from raysgd_local.control.controller.settings import CheckpointPolicy

BASE, SAMPLES, BATCH = 0.1, 25, 2
MAKERS = {**PER_STEP, **PER_EPOCH}
"""By name, functions that make a scheduler of an optimizer."""


def plain(name, steps=60):
    """Return a single process' rates, by the number of scheduler steps before each."""
    weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=BASE)
    scheduler, found = MAKERS[name](optimizer), []
    for _ in range(steps):
        before = weight.detach().clone()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        found.append(float(before - weight.detach()))
        try:
            scheduler.step(*([1.0] if isinstance(scheduler, schedulers.ReduceLROnPlateau) else []))
        except ValueError:  # OneCycleLR is over
            break
    return found


class Rates(nn.Module):
    """One parameter for each scheduler."""

    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros((), dtype=torch.float64)) for name in MAKERS}
        )


def loop_with_all_schedulers(epochs, seen, fault=None):
    """Record (name, scheduler steps before, measured rate, round, view, epoch) of every step."""

    def train():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(Rates())
        made = {}
        for name, make in MAKERS.items():
            optimizer = torch.optim.SGD([model.weights[name]], lr=BASE)
            made[name] = make(optimizer)
            ctx.prepare_optimizer(optimizer)
            ctx.prepare_scheduler(made[name])
        for epoch in ctx.epochs(epochs):
            for number, (x,) in enumerate(ctx.batches(TensorDataset(torch.zeros(SAMPLES, 1)), batch_size=BATCH)):
                if fault is not None and (epoch, number, ctx.rank) == (1, 1, 1) and ctx.view.number == 1:
                    raise fault
                before = {name: weight.detach().clone() for name, weight in model.weights.items()}
                counts = {name: scheduler.last_epoch for name, scheduler in made.items()}
                for weight in model.weights.values():
                    weight.grad = torch.ones_like(weight)
                round = ctx._shell.state.round
                ctx.step(x.sum(), samples=None)
                for name, weight in model.weights.items():
                    rate = float((before[name] - weight).detach())
                    seen.append((name, counts[name], rate, round, ctx.view.number, epoch))
                for name in PER_STEP:
                    made[name].step()
            for name in PER_EPOCH:
                plateau = isinstance(made[name], schedulers.ReduceLROnPlateau)
                made[name].step(*([1.0] if plateau else []))

    return train


def check(seen):
    """Every rate is that of a single process after as many steps of the scheduler, and equal on both workers."""
    expected = {name: plain(name) for name in MAKERS}
    members = defaultdict(set)
    for name, count, rate, round, _, epoch in seen:
        assert rate == pytest.approx(expected[name][count], rel=1e-12, abs=1e-15), (name, count)
        assert name not in PER_EPOCH or count == epoch
        members[name, round].add(count)
    assert {len(counts) for counts in members.values()} == {1}


@pytest.mark.parametrize("schedule", [EveryStep(), FixedPeriod(1)], ids=["every-step", "local"])
def test_two_workers_apply_the_rates_of_a_single_process_through_a_death_and_a_resume(
    train_in_threads, killed, tmp_path, schedule
):
    seen, policy = [], CheckpointPolicy(every_epochs=1, keep=None)
    how = {"workers": 2, "schedule": schedule, "policy": policy}
    first = train_in_threads(loop_with_all_schedulers(3, seen, killed), **how)
    assert first.result["status"] == "finished", first.outcome.finish
    assert first.result["workers_lost"] == 1
    assert {view for *_, view, _ in seen} > {1}
    manifest = json.loads(max((tmp_path / "run" / "checkpoints").glob("*/manifest.json")).read_text())
    again = train_in_threads(loop_with_all_schedulers(4, seen), resume=manifest, **how)
    assert again.result["status"] == "finished", again.outcome.finish
    check(seen)
    for model in again.models():
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(model, again.models()[0], strict=True))


@pytest.mark.parametrize("schedule", [EveryStep(), FixedPeriod(1)], ids=["every-step", "local"])
def test_rates_that_differ_between_workers_are_told_by_rank_where_all_step_together(train_in_threads, schedule):
    def train():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(nn.Linear(1, 1))
        optimizer = ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=BASE))
        for _ in ctx.epochs(1):
            for (x,) in ctx.batches(TensorDataset(torch.zeros(8, 1)), batch_size=2):
                optimizer.param_groups[0]["lr"] = BASE * (1 + ctx.rank)
                loss = model(x).sum()
                loss.backward()
                ctx.step(loss)

    done = train_in_threads(train, workers=2, schedule=schedule)
    if isinstance(schedule, FixedPeriod):
        assert done.result["status"] == "finished"
    else:
        assert done.result["status"] == "failed"
        assert "learning rates differ" in done.outcome.finish.reason
        assert "0.1 on rank 0, 0.2 on rank 1" in done.outcome.finish.reason
