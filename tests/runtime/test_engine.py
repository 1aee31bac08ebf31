"""The engine's promises, on the real shells: exactness, equality of replicas, the ledger."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

import raysgd_local
from raysgd_local.algorithms.schedules import AdaComm, AtEpoch, EveryStep, FixedPeriod, Switch
from raysgd_local.control.data.deal import Deal, lists


def regression(samples: int = 96, dtype: torch.dtype = torch.float64) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 5, generator=generator, dtype=dtype)
    return TensorDataset(x, x @ torch.randn(5, 2, generator=generator, dtype=dtype) + 0.1)


def two_layers(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).to(dtype)


def make_optimizer(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize(("samples", "scales"), [(96, ()), (101, ()), (96, (0.5,)), (101, (2.0, 0.75))])
def test_every_step_equals_one_process_on_the_joined_batches(train_in_threads, kind, samples, scales):
    data, epochs = regression(samples), 12  # over 50 steps
    initial, positions = two_layers(), []

    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(copy.deepcopy(initial))
        ctx.prepare_optimizer(make_optimizer(kind, model), clip_grad_norm=1.0)
        for _ in ctx.epochs(epochs):
            for x, y in ctx.batches(data, batch_size=8):
                loss = F.mse_loss(model(x), y)
                loss.backward()
                ctx.step(loss)
            if ctx.rank == 0:
                positions.append(ctx._shell.order.deal)

    done = train_in_threads(loop, workers=2, schedule=EveryStep(), program={"batch_scale": scales})
    assert done.result["status"] == "finished", done.outcome.finish
    assert len(done.rows()) >= 50

    alone = initial
    optimizer = make_optimizer(kind, alone)
    sizes = [round(8 * scale) for scale in (*scales, 1.0, 1.0)]
    for joined in joined_batches(positions, sizes):
        x, y = data[torch.tensor(joined)]
        F.mse_loss(alone(x), y).backward()
        nn.utils.clip_grad_norm_(alone.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for ours, theirs in zip(done.models()[0], alone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-9, atol=1e-12)


def joined_batches(deals: list[Deal], sizes: list[int]) -> list[list[int]]:
    """What all workers' batches of the same step are together."""
    from raysgd_local.control.data.deal import batch_bounds

    found = []
    for deal in deals:
        split = [
            [p[a:b].tolist() for a, b in batch_bounds(len(p), 0, size)]
            for p, size in zip(lists(deal), sizes, strict=False)
        ]
        found += [list(itertools.chain(*step)) for step in itertools.zip_longest(*split, fillvalue=[])]
    return found


@pytest.mark.parametrize(
    "schedule", [FixedPeriod(3), EveryStep(), Switch(EveryStep(), FixedPeriod(2), AtEpoch(1))]
)
def test_all_replicas_are_bit_identical_at_the_end(train_in_threads, schedule):
    done = train_in_threads(classifier_loop(epochs=3), workers=3, schedule=schedule)
    assert done.result["status"] == "finished", done.outcome.finish
    first, *others = done.models()
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def classifier_loop(epochs: int, samples: int = 100, batch_size: int = 7):
    data = regression(samples, torch.float32)

    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9))
        for _ in ctx.epochs(epochs):
            for x, y in ctx.batches(data, batch_size=batch_size):
                loss = F.mse_loss(model(x), y)
                loss.backward()
                ctx.step(loss)
            ctx.evaluate(squared_error, data)

    return loop


def squared_error(model, batch):
    return F.mse_loss(model(batch[0]), batch[1], reduction="none").mean(1)


class Counting(Dataset):
    """Counts what is really trained on is not its business: it gives each sample's index, so that loops can."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.randn(3), index


def test_after_e_epochs_every_sample_was_consumed_e_times(train_in_threads):
    stepped = torch.zeros(103, dtype=torch.int64)

    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(nn.Linear(3, 1))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
        for epoch in ctx.epochs(4):
            held = []
            for number, (x, index) in enumerate(ctx.batches(Counting(103), batch_size=6, num_workers=2)):
                held.append(index)
                loss = model(x).pow(2).mean()
                loss.backward()
                if (number + 1) % 2 == 0 or epoch == 0:  # accumulation over two batches
                    ctx.step(loss)
                    stepped[torch.cat(held)] += 1
                    held = []
                if epoch == 2 and ctx.rank == 1 and number == 3:
                    break
            if held:
                ctx.step(loss)
                stepped[torch.cat(held)] += 1

    done = train_in_threads(loop, workers=3, schedule=FixedPeriod(2))
    assert done.result["status"] == "finished", done.outcome.finish
    assert done.result["samples_lost"] == done.result["samples_repeated"] == 0
    assert stepped.tolist() == [4] * 103
    assert done.result["samples"] == 4 * 103


def test_what_nobody_steps_on_is_counted_as_lost(train_in_threads):
    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(nn.Linear(3, 1))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
        for _ in ctx.epochs(2):
            for number, (x, _index) in enumerate(ctx.batches(Counting(40), batch_size=5)):
                loss = model(x).pow(2).mean()
                loss.backward()
                ctx.step(loss)
                if number == 1:
                    break

    done = train_in_threads(loop, workers=2, schedule=FixedPeriod(3))
    assert done.result["samples_lost"] == 2 * (40 - 2 * 2 * 5)
    assert done.result["samples"] == 2 * 2 * 2 * 5


def test_adacomm_shortens_the_period_as_the_loss_falls_and_says_why(train_in_threads):
    done = train_in_threads(classifier_loop(epochs=12), workers=2, schedule=AdaComm(tau0=8, interval_s=0.01))
    taus = [int(row["tau"]) for row in done.rows()]
    assert taus[0] == 8
    assert min(taus) == 1
    changes = [e for e in events(done) if e["event"] == "period_changed"]
    assert changes[0]["from"] == 8
    assert all(change["why"] for change in changes)


def events(done) -> list[dict]:
    import json

    return [json.loads(line) for line in (done.directory / "events.jsonl").read_text().splitlines()]


def test_a_loop_without_batches_of_ours_runs_in_step(train_in_threads):
    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(nn.Linear(3, 1))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
        for _ in ctx.epochs(2):
            for _step in range(5 + ctx.rank):  # as many steps as one likes
                loss = model(torch.randn(4, 3)).pow(2).mean()
                loss.backward()
                ctx.step(loss, samples=4)

    done = train_in_threads(loop, workers=2, schedule=FixedPeriod(2))
    assert done.result["status"] == "finished", done.outcome.finish
    assert done.result["steps"] == 2 * (5 + 6)
    assert done.result["samples"] == 4 * 2 * (5 + 6)


def test_the_same_loop_runs_without_ray_and_is_plain_sgd():
    data = regression(24)
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(two_layers())
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9))
    order = []
    for _ in ctx.epochs(2):
        for x, y in ctx.batches(data, batch_size=5):
            order.append((x, y))
            loss = F.mse_loss(model(x), y)
            loss.backward()
            ctx.step(loss)
        assert ctx.evaluate(squared_error, data)["squared_error"] > 0
    alone = two_layers()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.05, momentum=0.9)
    for x, y in order:
        F.mse_loss(alone(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert sum(len(x) for x, _ in order) == 48
    for ours, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_evaluation_is_the_mean_over_all_samples_whatever_the_slices(train_in_threads):
    data = regression(31, torch.float32)
    found = []

    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(nn.Linear(5, 2))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.05))
        for _ in ctx.epochs(1):
            for x, y in ctx.batches(data, batch_size=8):
                loss = F.mse_loss(model(x), y)
                loss.backward()
                ctx.step(loss)
            metrics = ctx.evaluate(squared_error, data, batch_size=4)
            with torch.no_grad():
                whole = torch.stack([squared_error(model, b).sum() for b in DataLoader(data, 31)]).sum() / 31
            found.append((metrics["squared_error"], float(whole)))

    train_in_threads(loop, workers=3)
    assert len(found) == 3
    for ours, whole in found:
        assert ours == pytest.approx(whole, rel=1e-6)


def test_the_learning_rate_follows_all_workers_samples_from_before_the_step(train_in_threads):
    data, seen = regression(80), {}

    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(copy.deepcopy(two_layers()))
        optimizer = ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=1.0))
        ctx.prepare_scheduler(lambda epochs: 1.0 - epochs / 8)
        rates = seen.setdefault(ctx._shell.place.worker, [])
        for _ in ctx.epochs(2):
            for x, y in ctx.batches(data, batch_size=10):
                loss = 0 * F.mse_loss(model(x), y)
                loss.backward()
                ctx.step(loss)
                rates.append(optimizer.param_groups[0]["lr"])

    for schedule in (FixedPeriod(3), EveryStep()):
        seen.clear()
        train_in_threads(loop, workers=2, schedule=schedule, name=type(schedule).__name__)
        for rates in seen.values():  # a step of both workers is a quarter of an epoch
            assert rates == pytest.approx([1.0 - step * 0.25 / 8 for step in range(8)])


def test_a_worker_whose_state_is_not_finite_is_left_out_and_healed(train_in_threads):
    data = regression(64, torch.float32)

    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(nn.Linear(5, 2))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
        for epoch in ctx.epochs(3):
            for number, (x, y) in enumerate(ctx.batches(data, batch_size=8)):
                loss = F.mse_loss(model(x), y)
                loss.backward()
                if (epoch, number, ctx.rank) == (1, 1, 1):
                    model.weight.grad.fill_(torch.nan)
                ctx.step(loss)

    done = train_in_threads(loop, workers=2, schedule=FixedPeriod(2))
    assert done.result["status"] == "finished", done.outcome.finish
    assert all(torch.isfinite(t).all() for model in done.models() for t in model)
    momenta = [
        [s["momentum_buffer"] for s in shell.replica.optimizers[0].optimizer.state.values()]
        for shell in done.group.shells.values()
    ]
    assert all(torch.isfinite(buffer).all() for buffers in momenta for buffer in buffers)
