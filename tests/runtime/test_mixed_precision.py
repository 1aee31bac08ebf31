"""The loss scale: overflow is decided by all, and everybody goes on with the same scale."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local.algorithms.schedules import EveryStep, FixedPeriod


def loop_with_one_overflow(seen):
    data = TensorDataset(torch.ones(48, 3))

    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(nn.Linear(3, 1, bias=False))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
        scaler = ctx.prepare_scaler(torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000))
        for _ in ctx.epochs(1):
            for number, (x,) in enumerate(ctx.batches(data, batch_size=4)):
                before = model.weight.detach().clone()
                loss = model(x).mean()
                scaler.scale(loss).backward()
                if number == 2 and ctx.rank == 1:
                    model.weight.grad.fill_(torch.inf)
                ctx.step(loss)
                moved = bool((model.weight != before).any())
                seen.append((ctx.rank, number, moved, scaler.get_scale()))

    return loop


def test_an_overflow_anywhere_skips_the_joint_step_everywhere(train_in_threads):
    seen = []
    done = train_in_threads(loop_with_one_overflow(seen), workers=2, schedule=EveryStep())
    assert done.result["status"] == "finished", done.outcome.finish
    assert done.result["samples"] == 48  # a skipped step still consumes its data
    for _, number, moved, scale in seen:
        assert moved == (number != 2)
        assert scale == (1024.0 if number < 2 else 512.0)


def test_a_local_overflow_skips_that_workers_step_and_the_smallest_scale_becomes_everybodys(train_in_threads):
    seen = []
    done = train_in_threads(loop_with_one_overflow(seen), workers=2, schedule=FixedPeriod(6))
    assert done.result["status"] == "finished", done.outcome.finish
    skipped = [(rank, number) for rank, number, moved, _ in seen if not moved]
    assert skipped == [(1, 2)]
    assert {scale for _, number, _, scale in seen if number == 5} == {512.0}
    assert all(torch.isfinite(t).all() for model in done.models() for t in model)


@pytest.mark.parametrize("samples", [24, 27], ids=["equal lists", "one has no batch at the last step"])
def test_gradients_are_those_without_a_scale(train_in_threads, samples):
    weights, batches = [], []

    def loop(scaled):
        def run():
            ctx = raysgd_local.get_context()
            model = nn.Linear(3, 1, bias=False)
            nn.init.ones_(model.weight)
            model = ctx.prepare_model(model)
            ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01), clip_grad_norm=0.5)
            scaler = torch.amp.GradScaler("cpu", init_scale=64.0, enabled=scaled)
            scaler = ctx.prepare_scaler(scaler) if scaled else scaler
            taken = 0
            for _ in ctx.epochs(1):
                for (x,) in ctx.batches(TensorDataset(torch.eye(3).repeat(9, 1)[:samples]), batch_size=3):
                    loss = model(x).pow(2).mean()
                    scaler.scale(loss).backward()
                    ctx.step(loss)
                    taken += 1
            weights.append(model.weight.detach().flatten().tolist())
            batches.append(taken)

        return run

    for scaled in (True, False):
        train_in_threads(loop(scaled), workers=2, schedule=EveryStep(), name=f"scaled-{scaled}")
    assert weights[0] == pytest.approx(weights[2])
    assert weights[1] == weights[0]
    assert sorted(batches[:2]) == ([4, 4] if samples == 24 else [4, 5])
