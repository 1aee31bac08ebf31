"""Every pair of choices that is not refused runs."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Blocks, Elastic, Gossip, Mean
from raysgd_local.algorithms.compression import Half, Int8, RandomK, Sign, TopK
from raysgd_local.algorithms.outer import BlockMomentum, MaxChange, OuterOptimizer, SlowMo
from raysgd_local.algorithms.placement import LabelSkewed, RedundantChunks
from raysgd_local.algorithms.schedules import (
    QSR,
    AdaComm,
    AtEpoch,
    Delayed,
    Dynamic,
    EveryStep,
    FixedPeriod,
    Hierarchical,
    LupaLinear,
    LupaLoss,
    Once,
    Stability,
    Switch,
)
from raysgd_local.algorithms.weights import FedNova
from raysgd_local.errors import InputError

BLOCKS = Blocks(count=2)
HIERARCHICAL = Hierarchical(FixedPeriod(1), FixedPeriod(2))  # what there are blocks for
LATE = Delayed(Hierarchical(FixedPeriod(2), FixedPeriod(2)), 1)

CHOICES = {
    "schedule": [
        EveryStep(),
        FixedPeriod(2),
        AdaComm(4, 0.01),
        LupaLinear(1, 20, 5),
        LupaLoss(1),
        QSR(0.1, 2),
        Once(),
        Switch(EveryStep(), FixedPeriod(2), AtEpoch(1)),
        Switch(FixedPeriod(2), EveryStep(), AtEpoch(1)),
        Switch(EveryStep(), Once(), AtEpoch(1)),
        Switch(Once(), FixedPeriod(2), AtEpoch(1)),
        HIERARCHICAL,
        Dynamic(1, 1e-4),
        Switch(EveryStep(), Dynamic(1, 1e-4), AtEpoch(1)),
        Delayed(FixedPeriod(3), 1),
        LATE,
        Switch(EveryStep(), Delayed(FixedPeriod(2), 1), AtEpoch(1)),
        Switch(EveryStep(), FixedPeriod(1), Stability(1, held_out=2, epsilon=0.9)),
    ],
    "averaging": [Elastic(), Mean(fraction=0.5), Gossip(), BLOCKS],
    "outer": [OuterOptimizer("Adam", 0.01), BlockMomentum(), SlowMo(), MaxChange(1.0)],
    "compression": [Half(), Int8(), TopK(0.1), RandomK(0.2), Sign()],
    "placement": [RedundantChunks(2), LabelSkewed(0.3, chunks=2)],
    "optimizer_state": ["reset", "average"],
    "weights": [FedNova()],
}


def pairs() -> list[Algorithm]:
    """Of any two kinds of choice each pair of values, beside a fixed period, where it is not refused."""
    found = []
    for one, other in combinations(CHOICES, 2):
        for a, b in product(CHOICES[one], CHOICES[other]):
            blocks, given = BLOCKS in (a, b), "schedule" in (one, other)
            for usual in (HIERARCHICAL, LATE) if blocks and not given else (FixedPeriod(2),):
                try:
                    algorithm = Algorithm(**{"schedule": usual, one: a, other: b})
                except InputError:
                    continue
                if algorithm.weights.plain or algorithm.optimizer_state != "average":  # the loop's momentum anew
                    found.append(algorithm)
    return found


def loop() -> None:
    ctx = raysgd_local.get_context()
    torch.manual_seed(0)
    x = torch.randn(24, 4)
    data = TensorDataset(x, x.sum(1))
    model = ctx.prepare_model(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))
    keeps = ctx._shell.place.algorithm.optimizer_state == "keep"
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.0 if keeps else 0.9))
    for _ in ctx.epochs(2):
        for inputs, targets in ctx.batches(data, batch_size=3):
            loss = nn.functional.mse_loss(model(inputs)[:, 0], targets)
            loss.backward()
            ctx.step(loss.detach())
        ctx.evaluate(lambda model, batch: {"loss": (model(batch[0])[:, 0] - batch[1]).square().mean()}, data)


@pytest.mark.parametrize("algorithm", pairs(), ids=str)
def test_every_pair_that_is_not_refused_trains_to_the_end(train_in_threads, algorithm):
    done = train_in_threads(
        loop,
        workers=2,
        schedule=algorithm.schedule,
        spec={"algorithm": algorithm},
        program={"averaging": algorithm.averaging},
    )
    assert done.result["status"] == "finished", done.outcome.finish
    assert done.result["samples"] == 48
    assert done.result["eval"]["loss"] < 100
