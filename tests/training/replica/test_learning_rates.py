"""What the loop's schedulers say is what steps are taken with: torch's and Hugging Face's, as the loop steps them."""

from __future__ import annotations

import pytest
import torch
from rate_schedules import EPOCHS, PER_EPOCH, PER_STEP, STEPS
from torch.optim import lr_scheduler as schedulers

from raysgd_local import InputError, LearningRate
from raysgd_local.training.standalone import alone

BASE = 0.1


def rates(make, per_step, step, weight, optimizer, scheduler):
    """The rate of every step, measured: how far SGD goes on a gradient of 1."""
    found = []
    for _ in range(EPOCHS):
        for _ in range(STEPS):
            before = weight.detach().clone()
            weight.grad = torch.ones_like(weight)
            step()
            found.append(float((before - weight).detach()))
            if per_step:
                scheduler.step()
        if not per_step:
            scheduler.step(*([1.0] if isinstance(scheduler, schedulers.ReduceLROnPlateau) else []))
    return found


def plain(make, per_step):
    model = torch.nn.Linear(1, 1, bias=False).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=BASE)
    return rates(make, per_step, lambda: optimizer.step(), model.weight, optimizer, make(optimizer))


def prepared(make, per_step):
    ctx = alone()
    model = ctx.prepare_model(torch.nn.Linear(1, 1, bias=False).double())
    optimizer = torch.optim.SGD(model.parameters(), lr=BASE)
    scheduler = make(optimizer)
    ctx.prepare_optimizer(optimizer)
    ctx.prepare_scheduler(scheduler)
    steps = ctx.epochs(1)
    next(steps)
    return rates(make, per_step, lambda: ctx.step(torch.zeros(()), samples=1), model.weight, optimizer, scheduler)


@pytest.mark.parametrize(
    ("make", "per_step"),
    [(make, True) for make in PER_STEP.values()] + [(make, False) for make in PER_EPOCH.values()],
    ids=[*PER_STEP, *PER_EPOCH],
)
def test_every_step_is_taken_with_the_scheduler_s_rate(make, per_step):
    assert prepared(make, per_step) == pytest.approx(plain(make, per_step), rel=1e-12, abs=1e-15)


def test_a_rate_that_the_loop_sets_is_honoured_and_the_applied_one_is_shown():
    ctx = alone()
    model = ctx.prepare_model(torch.nn.Linear(1, 1, bias=False).double())
    optimizer = ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    ctx.prepare_scheduler(lambda done: 0.5)
    next(ctx.epochs(1))
    for rate in (0.1, 0.02, None):  # None: the loop leaves it as it is
        if rate is not None:
            optimizer.param_groups[0]["lr"] = rate
        before, model.weight.grad = model.weight.detach().clone(), torch.ones_like(model.weight)
        ctx.step(torch.zeros(()), samples=1)
        assert float((before - model.weight).detach()) == pytest.approx((rate or 0.02) / 2)
        assert optimizer.param_groups[0]["lr"] == pytest.approx((rate or 0.02) / 2)


def test_a_scheduler_is_what_the_loop_gave_and_anything_else_is_refused_by_name():
    ctx = alone()
    rate = LearningRate("cosine", epochs=3)
    assert ctx.prepare_scheduler(rate) is rate
    with pytest.raises(InputError, match="^schedule: 'int' is not allowed; allowed: a torch.optim.lr_scheduler"):
        ctx.prepare_scheduler(3)


def test_schedules_of_tau_see_the_loop_s_decay_from_its_highest_rate_and_no_warm_up():
    ctx = alone()
    model = ctx.prepare_model(torch.nn.Linear(1, 1))
    optimizer = ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    next(ctx.epochs(1))
    stepper, seen = ctx._shell.stepper, []
    for rate in (0.0, 0.05, 0.1, 0.1, 0.01):
        optimizer.param_groups[0]["lr"] = rate
        model.weight.grad = torch.zeros_like(model.weight)
        ctx.step(torch.zeros(()), samples=1)
        seen.append(stepper.decay(0))
    assert seen == pytest.approx([1.0, 1.0, 1.0, 1.0, 0.1])
