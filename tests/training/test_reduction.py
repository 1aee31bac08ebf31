"""One exchange of whole state, between threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from raysgd_local.algorithms.state import ReplicaState
from raysgd_local.control.exchange import Contribution, Control, Flags
from raysgd_local.training.reduction import Reduction
from raysgd_local.transport.inprocess import InProcessNetwork


def exchange(models: list[nn.Module]) -> list[Control]:
    """All average once; their models are what was committed."""
    network = InProcessNetwork()

    def member(rank: int) -> Control:
        reduction = Reduction(ReplicaState(models[rank]), network.allocate, len(models))
        reduction.seat(len(models))
        transport = network.connect(1, rank, len(models))
        control = reduction.reduce(transport, "parameters", Contribution(weight=2.0, samples=2))
        assert reduction.finite()
        reduction.commit("parameters", control, lambda _: None)
        return control

    with ThreadPoolExecutor(len(models)) as pool:
        return list(pool.map(member, range(len(models))))


def test_state_found_not_finite_on_its_way_counts_for_nothing() -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(*(nn.Linear(600, 600) for _ in range(3))) for _ in range(3)]
    with torch.no_grad():
        models[1][2].weight[5, 5] = float("nan")  # in the last part: the others are on their way by then
    mean = [(a + b).detach() / 2 for a, b in zip(models[0].parameters(), models[2].parameters(), strict=True)]
    controls = exchange(models)
    assert controls[0].ranks(Flags.NONFINITE) == (1,)
    assert [said.weight for said in controls[0].members] == [2.0, 0.0, 2.0]
    for model in models:
        for parameter, expected in zip(model.parameters(), mean, strict=True):
            torch.testing.assert_close(parameter.detach(), expected)
