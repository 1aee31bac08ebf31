"""A method of each kind from outside of the package: named in a configuration, and trained with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local.config import Config
from raysgd_local.config.model import from_mapping, from_yaml

sys.path.insert(0, str(Path(__file__).parent))
import outside  # noqa: F401 - found by name

CHOICES = {
    "schedule": {"kind": "outside:Counting", "first": 2},
    "averaging": {"kind": "outside:Star"},
    "outer": {"kind": "outside:HalfWay"},
    "compression": {"kind": "outside:Truncated"},
    "placement": {"kind": "outside:Everywhere", "chunks": 4},
    "weights": {"kind": "outside:Equal"},
}


def config(*choices: str) -> Config:
    usual = {"schedule": {"kind": "fixed", "tau": 2}}
    return from_mapping({"task": {"name": "digits"}, "algorithm": {**usual, **{c: CHOICES[c] for c in choices}}})


def error(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return model(inputs)[:, 0] - inputs.sum(1)


def loop() -> None:
    ctx = raysgd_local.get_context()
    x = torch.randn(48, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = ctx.prepare_model(nn.Linear(4, 1).double())
    nn.init.zeros_(model.weight)
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.05))
    for _ in ctx.epochs(2):
        for (inputs,) in ctx.batches(TensorDataset(x), batch_size=2):
            loss = error(model, inputs).square().mean()
            loss.backward()
            ctx.step(loss.detach())
        ctx.evaluate(
            lambda model, batch: {"loss": (model(batch[0])[:, 0] - batch[0].sum(1)).square()}, TensorDataset(x)
        )


@pytest.mark.parametrize(
    "choices", [*((kind,) for kind in CHOICES), ("schedule", "outer", "compression", "placement", "weights")]
)
def test_it_is_named_in_a_configuration_and_trains(train_in_threads, choices):
    found = config(*choices)
    assert from_yaml(found.to_yaml()) == found
    algorithm = found.algorithm
    done = train_in_threads(
        loop,
        workers=3,
        schedule=algorithm.schedule,
        spec={"algorithm": algorithm},
        program={"averaging": algorithm.averaging},
        settings={"placement": algorithm.placement},
    )
    assert done.result["status"] == "finished", done.outcome.finish
    assert done.result["samples"] == 96
    assert done.result["eval"]["loss"] < 2.0
    if "schedule" in choices:
        assert [int(row["tau"]) for row in done.rows()][:3] == [2, 3, 4]
