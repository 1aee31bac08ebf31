"""Loops that step one optimizer after the other (a GAN): plain PyTorch's numbers on one worker, and all refusals."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.utils.data import TensorDataset

from raysgd_local import InputError, UsageError
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.schedules import EveryStep, FixedPeriod
from raysgd_local.algorithms.weights import FedNova
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings
from raysgd_local.control.replicated.program import Program
from raysgd_local.training.context import TrainContext
from raysgd_local.training.shell import Shell
from raysgd_local.training.standalone import DirectLink
from raysgd_local.training.worker_setup import WorkerSetup
from raysgd_local.transport.in_process import InProcessNetwork

DATA = TensorDataset(torch.randn(20, 4, generator=torch.Generator().manual_seed(0)))
SGD = torch.optim.SGD
SCHEDULES = {
    "local": FixedPeriod(1),
    "local, in rounds of an odd number": FixedPeriod(3),
    "free steps": FixedPeriod(100),
    "every step": EveryStep(),
}


def alone(schedule, algorithm=None):
    settings = Settings(
        Program(schedule),
        workers_min=1,
        workers_max=1,
        checkpoints=CheckpointPolicy(every_epochs=None, last=False),
    )
    setup = WorkerSetup("w0", 0, algorithm=algorithm or Algorithm(schedule))
    return TrainContext(Shell(setup, InProcessNetwork(), DirectLink(settings)))


@dataclass
class Gan:
    """Two networks, with an optimizer each."""

    generator: nn.Module
    discriminator: nn.Module
    of_g: torch.optim.Optimizer
    of_d: torch.optim.Optimizer

    def d_loss(self, x, z):
        real = bce(self.discriminator(x), torch.ones(len(x), 1))
        return real + bce(self.discriminator(self.generator(z).detach()), torch.zeros(len(x), 1))

    def g_loss(self, z):
        return bce(self.discriminator(self.generator(z)), torch.ones(len(z), 1))


def pair(make=SGD, **options):
    """Two equal GANs: one for the context, one for plain PyTorch."""
    torch.manual_seed(1)
    generator = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    models = [(generator, nn.Linear(4, 1))]
    models.append(copy.deepcopy(models[0]))
    return [Gan(g, d, make(g.parameters(), **options), make(d.parameters(), **options)) for g, d in models]


def prepare(ctx, gan, **options):
    for model, optimizer in ((gan.generator, gan.of_g), (gan.discriminator, gan.of_d)):
        ctx.prepare_model(model)
        ctx.prepare_optimizer(optimizer, **options)


def noise(x):
    return torch.randn(len(x), 2, generator=torch.Generator().manual_seed(int(1000 * x.sum())))


def assert_equal_to_the_bit(gan, plain):
    for one, other in ((gan.generator, plain.generator), (gan.discriminator, plain.discriminator)):
        for name, value in one.named_parameters():
            assert torch.equal(value, other.get_parameter(name)), name
        for name, value in one.named_buffers():  # statistics are pooled as differences
            torch.testing.assert_close(value, other.get_buffer(name))


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(
    ("make", "options"),
    [(SGD, {"lr": 0.1, "momentum": 0.9}), (torch.optim.Adam, {"lr": 0.01})],
    ids=["SGD", "Adam"],
)
def test_a_gan_trains_as_by_plain_pytorch_to_the_bit(schedule, make, options):
    gan, plain = pair(make, **options)
    ctx = alone(schedule)
    prepare(ctx, gan)
    for _ in ctx.epochs(3):
        for (x,) in ctx.batches(DATA, batch_size=4):
            z = noise(x)
            gan.of_d.zero_grad()
            loss = gan.d_loss(x, z)
            loss.backward()
            ctx.step(loss, optimizer=gan.of_d)
            gan.of_g.zero_grad()
            loss = gan.g_loss(z)
            loss.backward()
            ctx.step(loss, optimizer=gan.of_g)
            plain.of_d.zero_grad()
            plain.d_loss(x, z).backward()
            plain.of_d.step()
            plain.of_g.zero_grad()
            plain.g_loss(z).backward()
            plain.of_g.step()
    assert_equal_to_the_bit(gan, plain)
    state = ctx._shell.state
    assert (state.epoch, state.samples, state.steps) == (3, 3 * 20, 3 * 5 * 2)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_several_generator_steps_on_one_batch_and_batches_without_one_are_all_taken(schedule):
    gan, plain = pair(lr=0.1)
    ctx = alone(schedule)
    prepare(ctx, gan)

    def phases(number):
        return ["d", "g", "g", "g"] if number % 2 else ["d"]

    for _ in ctx.epochs(2):
        for number, (x,) in enumerate(
            ctx.batches(DATA, batch_size=4)
        ):  # five: the last one has no generator's step
            for phase in phases(number + 1):
                for one, step in ((gan, ctx), (plain, None)):
                    optimizer = one.of_d if phase == "d" else one.of_g
                    optimizer.zero_grad()
                    loss = one.d_loss(x, noise(x)) if phase == "d" else one.g_loss(noise(x))
                    loss.backward()
                    optimizer.step() if step is None else ctx.step(loss, optimizer=[optimizer])
    assert_equal_to_the_bit(gan, plain)
    assert (ctx._shell.state.epoch, ctx._shell.state.samples) == (2, 40)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_clipping_schedulers_and_a_loss_scale_go_with_the_optimizer_that_steps(schedule):
    gan, plain = pair(lr=0.5)
    scalers = [torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3) for _ in range(2)]
    rates = [[torch.optim.lr_scheduler.StepLR(o, 1, 0.9) for o in (one.of_d, one.of_g)] for one in (gan, plain)]
    ctx = alone(schedule)
    prepare(ctx, gan, clip_grad_norm=0.1)
    ctx.prepare_scaler(scalers[0])
    for scheduler in rates[0]:
        ctx.prepare_scheduler(scheduler)
    for _ in ctx.epochs(3):
        for (x,) in ctx.batches(DATA, batch_size=4):
            for number in range(2):  # of the discriminator, of the generator
                for one, scaler, schedulers in zip((gan, plain), scalers, rates, strict=True):
                    optimizer = (one.of_d, one.of_g)[number]
                    optimizer.zero_grad()
                    loss = one.g_loss(noise(x)) if number else one.d_loss(x, noise(x))
                    scaler.scale(loss).backward()
                    if one is gan:
                        ctx.step(loss, optimizer=optimizer)
                    else:
                        scaler.unscale_(optimizer)
                        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 0.1)
                        scaler.step(optimizer)
                        scaler.update()
                    schedulers[number].step()
    assert_equal_to_the_bit(gan, plain)
    assert scalers[0].get_scale() == scalers[1].get_scale() > 8.0
    assert [s.get_last_lr() for s in rates[0]] == [s.get_last_lr() for s in rates[1]]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_others_keep_their_gradients_and_state(schedule):
    gan, _ = pair(torch.optim.Adam, lr=0.1)
    ctx = alone(schedule)
    prepare(ctx, gan)
    for _ in ctx.epochs(1):
        for (x,) in ctx.batches(DATA, batch_size=4):
            loss = gan.g_loss(noise(x))
            loss.backward()
            kept = [p.grad.clone() for p in gan.generator.parameters()]
            before = copy.deepcopy(gan.generator.state_dict())
            ctx.step(loss, optimizer=gan.of_d)
            assert all(torch.equal(p.grad, own) for p, own in zip(gan.generator.parameters(), kept, strict=True))
            assert all(p.grad is None for p in gan.discriminator.parameters())
            assert not gan.of_g.state
            for name, value in gan.generator.named_parameters():
                assert torch.equal(value, before[name])
            gan.of_g.zero_grad()


def test_gradients_that_an_optimizer_keeps_follow_the_loss_scale():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    often, seldom = (SGD([weight], lr=1.0) for weight in weights)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1)  # doubles after each step
    ctx = alone(FixedPeriod(1))
    ctx.prepare_model(nn.ParameterList(weights))
    ctx.prepare_optimizer(often)
    ctx.prepare_optimizer(seldom)
    ctx.prepare_scaler(scaler)
    for _ in ctx.epochs(1):
        for number in range(4):
            loss = weights[0].sum() + weights[1].sum()
            scaler.scale(loss).backward()
            ctx.step(loss.detach(), samples=1, optimizer=often if number < 3 else (often, seldom))
    assert [float(weight.detach()) for weight in weights] == [-4.0, -4.0]


def test_an_overflow_skips_the_step_of_the_optimizer_that_has_it_and_no_other():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizers = [SGD([weight], lr=1.0) for weight in weights]
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    ctx = alone(EveryStep())
    ctx.prepare_model(nn.ParameterList(weights))
    for optimizer in optimizers:
        ctx.prepare_optimizer(optimizer)
    ctx.prepare_scaler(scaler)
    for _ in ctx.epochs(1):
        for weight, optimizer, factor in zip(weights, optimizers, (float("inf"), 1.0), strict=True):
            scaler.scale((weight * factor).sum()).backward()
            ctx.step(1.0, samples=1, optimizer=optimizer)
    assert [float(weight.detach()) for weight in weights] == [0.0, -1.0]
    assert scaler.get_scale() == 2.0


def test_the_loss_of_the_first_step_on_a_batch_counts():
    gan, _ = pair(lr=0.0)
    ctx = alone(FixedPeriod(100))
    prepare(ctx, gan)
    for _ in ctx.epochs(1):
        for _ in ctx.batches(DATA, batch_size=10):
            ctx.step(2.0, optimizer=gan.of_d)
            ctx.step(50.0, optimizer=gan.of_g)
    (row,) = ctx._shell.member.rounds
    assert (row.loss, row.samples, row.steps) == (2.0, 20, 4)


def test_a_loop_with_data_of_its_own_names_optimizers_too():
    gan, _ = pair(lr=0.1)
    ctx = alone(EveryStep())
    prepare(ctx, gan)
    for epoch in ctx.epochs(2):
        if epoch == 1:
            with pytest.raises(UsageError, match="samples=… where no batch was taken"):
                ctx.step(1.0, optimizer=gan.of_g)
        ctx.step(1.0, samples=7, optimizer=gan.of_d)
        before = ctx._shell.state.samples
        ctx.step(1.0, optimizer=gan.of_g)
        assert ctx._shell.state.samples == before


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda gan: SGD(gan.generator.parameters(), lr=1), "an optimizer of class SGD that was not prepared"),
        (lambda gan: gan.generator, "an object of class Sequential"),
        (lambda gan: [gan.of_g, None], "None"),
        (lambda gan: "generator", "'generator'"),
        (lambda gan: 1, "1"),
        (lambda gan: [], "no optimizer"),
        (lambda gan: gan.generator.parameters(), "an object of class Parameter"),
    ],
    ids=["not prepared", "a model", "one of several", "a name", "a number", "none", "parameters"],
)
def test_anything_that_was_not_prepared_is_refused_with_the_allowed_ones_and_no_step_is_lost(make, told):
    gan, _ = pair(lr=0.1)
    ctx = alone(FixedPeriod(1))
    prepare(ctx, gan)
    for _ in ctx.epochs(1):
        for _ in ctx.batches(DATA, batch_size=10):
            with pytest.raises(
                InputError, match=rf"^optimizer: .*{re.escape(told)}.*allowed: .*0 \(SGD\), 1 \(SGD\)"
            ):
                ctx.step(1.0, optimizer=make(gan))
            ctx.step(1.0, optimizer=(gan.of_g, gan.of_d))
    assert ctx._shell.state.samples == 20


@pytest.mark.parametrize(
    ("algorithm", "told"),
    [
        (Algorithm(FixedPeriod(2), weights=FedNova()), "FedNova"),
    ],
)
def test_methods_that_need_steps_of_all_optimizers_say_so(algorithm, told):
    gan, _ = pair(lr=0.1)
    ctx = alone(algorithm.schedule, algorithm)
    prepare(ctx, gan)
    for _ in ctx.epochs(1):
        for _ in ctx.batches(DATA, batch_size=10):
            with pytest.raises(UsageError, match=f"can't be used with .*{told}"):
                ctx.step(1.0, optimizer=gan.of_g)
            ctx.step(1.0)
