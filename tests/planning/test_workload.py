"""What is measured of a task is what its own loop does."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from raysgd_local.errors import InputError, UserCodeError
from raysgd_local.planning.workload import measure
from raysgd_local.tasks import Digits
from raysgd_local.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class Slow(Digits):
    """Each step takes 20 ms more, and the first one 200."""

    def loss(self, model, batch):
        time.sleep(0.02 if hasattr(model, "warm") else 0.2)
        model.warm = True
        return super().loss(model, batch)


@dataclass(frozen=True, kw_only=True)
class Normalised(Digits):
    def make_model(self):
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))


@dataclass(frozen=True, kw_only=True)
class Wrong(Digits):
    def loss(self, model, batch):
        raise ValueError("no loss here")


@dataclass(frozen=True, kw_only=True)
class Idle(Task):
    def train(self, ctx):
        model = ctx.prepare_model(nn.Linear(2, 2))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
        list(ctx.epochs(2))


def test_steps_are_timed_once_warm_and_the_first_one_by_itself():
    found = measure(Slow(), steps=15)
    assert len(found.step_s) == 12
    assert 0.02 < min(found.step_s) < 0.05
    assert found.warmup_s > 0.15
    assert found.samples == 1437


def test_all_that_is_averaged_counts_buffers_too():
    running = 2 * 64  # mean and variance
    parameters = 2 * 64 + 64 * 10 + 10
    bare, whole = (measure(task, steps=2).state_bytes for task in (Digits(), Normalised()))
    assert whole == pytest.approx(4 * (parameters + running), abs=32)
    assert bare == pytest.approx(4 * (64 * 64 + 64 + 64 * 10 + 10), abs=32)


def test_a_small_training_set_is_gone_through_as_often_as_it_takes():
    assert len(measure(Digits(batch_size=512), steps=20).step_s) == 17


def test_it_ends_after_the_seconds_given():
    began = time.monotonic()
    found = measure(Slow(), seconds=0.5, steps=10_000)
    assert time.monotonic() - began < 10
    assert 3 <= len(found.step_s) < 25


def test_an_error_of_the_task_is_told_as_such():
    with pytest.raises(UserCodeError, match="no loss here"):
        measure(Wrong())


def test_a_task_without_steps_can_not_be_measured():
    with pytest.raises(InputError, match="a task that takes steps"):
        measure(Idle())


def test_torchs_threads_are_what_they_were():
    before = torch.get_num_threads()
    measure(Digits(), threads=before + 1, steps=2)
    assert torch.get_num_threads() == before
