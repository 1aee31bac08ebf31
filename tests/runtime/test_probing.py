"""Probes on the real shells: nothing of them stays, and what they find is what an independent few lines find."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import raysgd_local
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.schedules import Compared, EveryStep, FixedPeriod, Stability, Switch
from raysgd_local.control.control_slots import Contribution
from raysgd_local.state.replica_state import ReplicaState
from raysgd_local.training.exchange.factory import make_reduction
from raysgd_local.training.exchange.plain import Installing
from raysgd_local.transport.in_process import InProcessNetwork


@dataclass(frozen=True)
class Never(Stability):
    """Tries for ever."""

    def passes(self, found: Compared) -> bool:
        FOUND.setdefault(threading.current_thread().name, []).append(found)
        return False


FOUND: dict[str, list[Compared]] = {}


@pytest.fixture(autouse=True)
def _nothing_found():
    FOUND.clear()


class Average:
    """The user's own state: a mean of the weights over time."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.mean = model, torch.zeros(3, 4)

    def update(self) -> None:
        self.mean.lerp_(self.model[0].weight.detach(), 0.1)

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean.copy_(state["mean"])


def classifier(dropout: float, means: dict[str, torch.Tensor]):
    def loop() -> None:
        ctx = raysgd_local.get_context()
        generator = torch.Generator().manual_seed(0)  # the global one is all threads'
        x = torch.randn(96, 4, generator=generator)
        model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(dropout), nn.Linear(3, 1))
        for parameter in model.parameters():
            nn.init.normal_(parameter, generator=generator)
        model = ctx.prepare_model(model)
        ctx.prepare_optimizer(torch.optim.AdamW(model.parameters(), lr=0.05))
        average = Average(model)
        ctx.register("average", average)
        for _ in ctx.epochs(2):
            for inputs, targets in ctx.batches(TensorDataset(x, x.sum(1)), batch_size=3):
                loss = nn.functional.mse_loss(model(inputs)[:, 0], targets)
                loss.backward()
                average.update()
                ctx.step(loss.detach())
        means[ctx._shell.place.worker] = average.mean

    return loop


@pytest.mark.parametrize(("workers", "dropout"), [(1, 0.3), (2, 0.0)])  # dropout draws from the global generator
def test_training_goes_on_as_if_nothing_had_been_tried(train_in_threads, workers, dropout):
    """Adam, BatchNorm, dropout, what the user registers: every bit is as with every-step."""
    means = {"probes": {}, "none": {}}
    probing = Switch(EveryStep(), FixedPeriod(3), Never(every=2, held_out=2))
    done = {
        name: train_in_threads(classifier(dropout, means[name]), workers, schedule, name)
        for name, schedule in {"probes": probing, "none": EveryStep()}.items()
    }
    told = [json.loads(line) for line in (done["probes"].directory / "events.jsonl").read_text().splitlines()]
    found = [event["found"] for event in told if event["event"] == "probed"]
    assert len(found) >= 4
    assert all("worse" in words for words in found)
    assert done["probes"].result["samples"] == done["none"].result["samples"] == 2 * 96
    assert done["probes"].result["samples_repeated"] == 0
    for tried, plain in zip(done["probes"].models(), done["none"].models(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tried, plain, strict=True))
    assert all(torch.equal(mean, means["none"][name]) for name, mean in means["probes"].items())
    assert len({tuple(row["loss"] for row in run.rows()) for run in done.values()}) == 1


RATE, CENTRES = 0.2, torch.linspace(-2, 2, 60)


class Indices(Dataset):
    def __len__(self) -> int:
        return len(CENTRES)

    def __getitem__(self, index: int) -> int:
        return index


@dataclass(frozen=True)
class Quadratics:
    """½ Σ_d a_i (x_d − c_id)², the mean over a batch; the curvatures a_i are 1 + `spread`·c_i²."""

    spread: float

    def loss(self, x: torch.Tensor, batch: list[int]) -> torch.Tensor:
        curvature, centres = self._of(batch)
        return (0.5 * curvature * (x - centres) ** 2).sum(1).mean()

    def gradient(self, x: torch.Tensor, batch: list[int]) -> torch.Tensor:
        curvature, centres = self._of(batch)
        return (curvature * (x - centres)).mean(0)

    def _of(self, batch: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        centres = CENTRES[batch].to(torch.float64)
        return (1 + self.spread * centres**2).unsqueeze(1), torch.stack([centres, centres**2], dim=1)

    def joint(self, x: torch.Tensor, batches: list[list[int]]) -> torch.Tensor:
        """One synchronous step on the joined batch."""
        return x - RATE * self.gradient(x, [index for batch in batches for index in batch])

    def compared(self, lists: list[list[list[int]]], begin: int, k: int, j: int) -> tuple[float, float, float]:
        """Both branches in the shortest form, and the error of the weighted mean difference over batches."""
        x = torch.full((2,), 3.0, dtype=torch.float64)
        for number in range(begin):
            x = self.joint(x, [own[number] for own in lists])
        local = [x.clone() for _ in lists]
        for number in range(begin, begin + k):
            local = [at - RATE * self.gradient(at, own[number]) for at, own in zip(local, lists, strict=True)]
            x = self.joint(x, [own[number] for own in lists])
        counts = torch.tensor([float(sum(map(len, own[begin : begin + k]))) for own in lists], dtype=x.dtype)
        mean = (counts / counts.sum()) @ torch.stack(local)
        held_out = [batch for own in lists for batch in own[begin + k : begin + k + j]]
        n = torch.tensor([float(len(batch)) for batch in held_out], dtype=x.dtype)
        apart = torch.stack([self.loss(mean, batch) for batch in held_out])
        together = torch.stack([self.loss(x, batch) for batch in held_out])
        share, gaps = n / n.sum(), apart - together
        scatter = (share**2 * (gaps - share @ gaps) ** 2).sum()
        error = (scatter * len(held_out) / (len(held_out) - 1)).sqrt()
        return float(share @ apart), float(share @ together), float(error)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_what_a_probe_finds_is_what_both_branches_come_to(train_in_threads, spread):
    """With equal curvatures the mean of local models is the synchronous one, whatever their centres; else not."""
    task = Quadratics(spread)
    steps: dict[str, list[tuple[bool, list[int]]]] = {}

    def loop() -> None:
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(nn.Linear(2, 1, bias=False, dtype=torch.float64))
        nn.init.constant_(model.weight, 3.0)
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=RATE))
        for _ in ctx.epochs(1):
            for index in ctx.batches(Indices(), batch_size=3 + ctx.rank):
                loss = task.loss(model.weight[0], index.tolist())
                loss.backward()
                tries = ctx.probing
                ctx.step(loss.detach())
                steps.setdefault(ctx._shell.place.worker, []).append((tries, index.tolist()))

    k, j = 4, 2
    done = train_in_threads(loop, schedule=Switch(EveryStep(), FixedPeriod(k), Never(every=1, held_out=j)))
    assert done.result["status"] == "finished", done.outcome.finish
    batches = {name: [batch for tries, batch in taken if not tries] for name, taken in sorted(steps.items())}
    tried = {name: [batch for tries, batch in taken if tries] for name, taken in sorted(steps.items())}
    for name, own in batches.items():  # the same samples, twice: K + J and J after
        assert tried[name][: k + j] == own[1 : 1 + k + j]
        assert tried[name][k + j : k + 2 * j] == own[1 + k : 1 + k + j]
    expected = task.compared(list(batches.values()), begin=1, k=k, j=j)
    found = next(iter(FOUND.values()))[0]
    assert (found.local, found.synchronous, found.error) == pytest.approx(expected, abs=1e-6)
    assert (abs(found.local - found.synchronous) > 1e-3) == bool(spread)


def test_a_loop_that_takes_no_batches_of_ours_is_told_that_nothing_can_be_tried_twice(train_in_threads):
    def loop() -> None:
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(nn.Linear(2, 1))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
        for _ in ctx.epochs(1):
            loss = model(torch.ones(1, 2)).sum()
            loss.backward()
            ctx.step(loss.detach(), samples=1)

    done = train_in_threads(loop, workers=1, schedule=Switch(when=Stability()))
    assert done.result["status"] == "failed"
    assert "has to take them from ctx.batches" in done.outcome.finish.error


def test_a_loop_that_leaves_the_epoch_in_a_probe_loses_no_sample_that_others_can_take(train_in_threads):
    stepped = torch.zeros(60, dtype=torch.long)

    def loop() -> None:
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(nn.Linear(2, 1, bias=False))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01))
        for _ in ctx.epochs(2):
            for index in ctx.batches(Indices(), batch_size=3):
                loss = Quadratics(0.0).loss(model.weight[0], index.tolist())
                loss.backward()
                tries = ctx.probing
                ctx.step(loss.detach())
                if not tries:
                    stepped[index] += 1
                elif ctx._shell.place.worker == "w1":
                    break

    done = train_in_threads(loop, schedule=Switch(EveryStep(), FixedPeriod(3), Stability(every=2, held_out=2)))
    assert done.result["status"] == "finished", done.outcome.finish
    assert done.result["samples_lost"] == done.result["samples_repeated"] == 0
    assert stepped.tolist() == [2] * 60


def test_what_was_tried_does_not_touch_the_round_that_heals_others():
    network, said, kept = InProcessNetwork(), Contribution(weight=1.0, steps=1, samples=1), {}

    def live(rank: int) -> None:
        model = nn.Linear(2, 1, bias=False)
        state = ReplicaState(model, [torch.optim.SGD(model.parameters(), lr=0.1)])
        reduction = make_reduction(state, network.allocate, 2, Algorithm(FixedPeriod(1)))
        transport = network.connect(1, rank, 2)
        reduction.seat(2)
        nn.init.constant_(model.weight, 1.0 + rank)
        control = reduction.reduce(transport, "parameters", 1, said)
        reduction.commit(Installing("parameters", "parameters", lambda _: None), control)
        before = reduction._kept.clone()
        nn.init.constant_(model.weight, 10.0 * (1 + rank))
        reduction.show(reduction.average(transport, 2, said))
        kept[rank] = model.weight.tolist(), torch.equal(reduction._kept, before)

    threads = [threading.Thread(target=live, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert kept == {rank: ([[15.0, 15.0]], True) for rank in range(2)}
