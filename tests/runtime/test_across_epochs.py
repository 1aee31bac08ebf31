"""Rounds across epochs on the real shells: τ is τ, evaluations change nothing, no sample is lost."""

from __future__ import annotations

import copy
import threading
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Blocks, Elastic, Gossip
from raysgd_local.algorithms.compression import Int8, TopK
from raysgd_local.algorithms.outer import SlowMo
from raysgd_local.algorithms.schedules import AdaComm, Delayed, EveryStep, FixedPeriod, Hierarchical, Once

ACROSS = {"across_epochs": True}


def data(samples: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 5, generator=generator)
    return TensorDataset(x, x @ torch.randn(5, 2, generator=generator), torch.arange(samples))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def error(model, batch):
    return {"error": F.mse_loss(model(batch[0]), batch[1], reduction="none").mean(1)}


class Loop:
    """A training loop. `seen` counts by epoch the samples of its steps; `shown` has the evaluated models by epoch."""

    def __init__(self, samples: int, batch_size: int, epochs: int, evaluates: bool = False, stop=None) -> None:
        self.data, self.batch_size, self.epochs, self.evaluates = data(samples), batch_size, epochs, evaluates
        self.stop, self.initial = stop, network()  # in one thread: they share the random generator
        self.seen: Counter[int] = Counter()
        self.shown: list[tuple[int, list[torch.Tensor]]] = []
        self.lock = threading.Lock()

    def __call__(self) -> None:
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(copy.deepcopy(self.initial))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9))
        for epoch in ctx.epochs(self.epochs):
            for x, y, index in ctx.batches(self.data, batch_size=self.batch_size):
                loss = F.mse_loss(model(x), y)
                loss.backward()
                ctx.step(loss)
                with self.lock:
                    self.seen.update(index.tolist())
            if self.evaluates:
                before = [t.clone() for t in model.state_dict().values()]
                found = ctx.evaluate(self._judged(epoch), self.data)
                if not ctx.stopping and len(self.data) % (self.batch_size * ctx.world_size) == 0:  # no round in it
                    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
                if self.stop is not None and found["error"] < self.stop:
                    ctx.stop()

    def _judged(self, epoch):
        def judged(model, batch):
            with self.lock:
                self.shown.append((epoch, [p.detach().clone() for p in model.parameters()]))
            return error(model, batch)

        return judged


def steps(done, workers):
    return [int(row["steps"]) // workers for row in done.rows()]


def test_every_round_but_the_last_has_tau_steps_though_an_epoch_has_fewer(train_in_threads):
    loop = Loop(samples=8 * 24 * 2, batch_size=2, epochs=9)
    done = train_in_threads(loop, workers=8, schedule=FixedPeriod(64), program=ACROSS)
    assert done.result["status"] == "finished"
    assert steps(done, 8) == [64, 64, 64, 24]
    assert {row["tau"] for row in done.rows()} == {"64"}
    assert set(loop.seen.values()) == {9}
    assert len(loop.seen) == 8 * 24 * 2


METHODS = {
    "mean": Algorithm(FixedPeriod(7)),
    "every step": Algorithm(EveryStep()),
    "outer": Algorithm(FixedPeriod(7), outer=SlowMo(beta=0.4)),
    "elastic": Algorithm(FixedPeriod(7), averaging=Elastic(0.8)),
    "int8": Algorithm(FixedPeriod(7), compression=Int8(block=8)),
    "outer top-k": Algorithm(FixedPeriod(7), compression=TopK(0.2), outer=SlowMo(beta=0.4)),
    "once": Algorithm(Once()),
    "gossip": Algorithm(FixedPeriod(7), averaging=Gossip("ring")),
    "hierarchical": Algorithm(Hierarchical(FixedPeriod(3), FixedPeriod(3)), averaging=Blocks(count=2)),
    "delayed": Algorithm(Delayed(FixedPeriod(7), delay=2)),
    "averaged momentum": Algorithm(FixedPeriod(7), optimizer_state="average"),
    "reset momentum": Algorithm(FixedPeriod(7), optimizer_state="reset"),
}


def trained(train_in_threads, algorithm, loop, name="run"):
    done = train_in_threads(
        loop,
        workers=4,
        schedule=algorithm.schedule,
        spec={"algorithm": algorithm},
        program={**ACROSS, "averaging": algorithm.averaging},
        name=name,
    )
    assert done.result["status"] == "finished", done.outcome.finish
    return done


def of_ten_steps(epochs, **options):
    """A loop whose epochs have ten steps on each of four workers."""
    return Loop(samples=4 * 10 * 3, batch_size=3, epochs=epochs, **options)


@pytest.mark.parametrize("name", METHODS)
def test_an_evaluation_changes_nothing_and_shows_all_ranks_the_same_model(train_in_threads, name):
    loop, other = of_ten_steps(5, evaluates=True), of_ten_steps(5)
    with_it = trained(train_in_threads, METHODS[name], loop, "with")
    without = trained(train_in_threads, METHODS[name], other, "without")
    assert set(loop.seen.values()) == set(other.seen.values()) == {5}
    assert [row["steps"] for row in with_it.rows()] == [row["steps"] for row in without.rows()]
    for ours, theirs in zip(with_it.models(), without.models(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    for epoch in range(5):
        first, *others = [model for of, model in loop.shown if of == epoch]
        assert len(others) >= 3
        for other in others:
            assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_an_evaluation_in_a_round_is_of_the_mean_of_the_members_models(train_in_threads):
    locals_: list[list[torch.Tensor]] = []

    class Watching(Loop):
        def _judged(self, epoch):
            model = raysgd_local.get_context()._shell.replica.models[0]
            if epoch == 0:
                with self.lock:
                    locals_.append([p.detach().clone() for p in model.parameters()])
            return super()._judged(epoch)

    loop = Watching(samples=4 * 10 * 3, batch_size=3, epochs=2, evaluates=True)
    train_in_threads(loop, workers=4, schedule=FixedPeriod(15), program=ACROSS)
    shown = next(model for epoch, model in loop.shown if epoch == 0)
    assert not torch.equal(locals_[0][0], locals_[1][0])
    for number, parameter in enumerate(shown):
        mean = torch.stack([local[number] for local in locals_]).mean(0)
        torch.testing.assert_close(parameter, mean)


@pytest.mark.parametrize("name", ["mean", "outer", "elastic", "once", "gossip"])
def test_a_stop_after_an_evaluation_ends_with_the_model_that_was_judged(train_in_threads, name):
    loop = of_ten_steps(50, evaluates=True, stop=100.0)
    done = trained(train_in_threads, METHODS[name], loop)
    assert {epoch for epoch, _ in loop.shown} == {0}
    judged = loop.shown[0][1]
    ctx_model = done.group.shells["w0"].replica
    with ctx_model.shown():
        for ours, theirs in zip(judged, ctx_model.models[0].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_target_that_an_evaluation_reaches_ends_training_there(train_in_threads):
    loop = of_ten_steps(50, evaluates=True)
    program = {**ACROSS, "target": ("error", 100.0)}
    done = train_in_threads(loop, workers=4, schedule=FixedPeriod(7), program=program)
    assert done.result["status"] == "finished"
    assert "error reached" in done.outcome.finish.reason
    assert sum(steps(done, 4)) == 10
    first, *others = done.models()
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("schedule", [FixedPeriod(11), AdaComm(tau0=8, interval_s=0.01), EveryStep()])
def test_a_death_and_a_joiner_lose_and_repeat_no_sample(train_in_threads, killed, schedule):
    class Dying(Loop):
        def __call__(self) -> None:
            self.mine = threading.local()
            super().__call__()

        def _judged(self, epoch):
            shell = raysgd_local.get_context()._shell
            if shell.place.worker == "w1" and epoch == 1:
                raise killed
            return super()._judged(epoch)

    loop = Dying(samples=401, batch_size=3, epochs=5, evaluates=True)
    done = train_in_threads(loop, workers=3, schedule=schedule, program=ACROSS)
    assert done.result["status"] == "finished", done.outcome.finish
    assert done.result["workers_lost"] == 1
    assert done.result["samples_lost"] == done.result["samples_repeated"] == 0
    assert done.result["samples"] == 5 * 401
    assert len(loop.seen) == 401


def test_loops_with_data_of_their_own_go_across_epochs(train_in_threads):
    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(nn.Linear(5, 2))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.05))
        x = torch.randn(4, 5)
        for _ in ctx.epochs(6):
            for _ in range(10):
                loss = model(x).square().mean()
                loss.backward()
                ctx.step(loss, samples=4)
            ctx.evaluate(lambda model, batch: model(batch[0]).sum(1), TensorDataset(x))

    done = train_in_threads(loop, workers=3, schedule=FixedPeriod(16), program=ACROSS)
    assert done.result["status"] == "finished"
    assert steps(done, 3) == [16, 16, 16, 12]
    assert len((done.directory / "evals.csv").read_text().splitlines()) == 1 + 6


def test_an_evaluation_of_one_rank_alone_is_told_by_rank(train_in_threads):
    class Alone(Loop):
        def __call__(self) -> None:
            self.evaluates = False
            super().__call__()

    dataset = data(120)

    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(network())
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.05))
        for _ in ctx.epochs(4):
            for x, y, _ in ctx.batches(dataset, batch_size=3):
                loss = F.mse_loss(model(x), y)
                loss.backward()
                ctx.step(loss)
            if ctx.rank == 0:
                ctx.evaluate(error, dataset)

    done = train_in_threads(loop, workers=3, schedule=FixedPeriod(4), program=ACROSS)
    assert done.outcome.finish.status == "failed"
    assert "rank 0 evaluates (ctx.evaluate); rank 1 trains in epoch 1" in done.outcome.finish.error
