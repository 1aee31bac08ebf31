"""One exchange of whole state, between threads."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.schedules import AtEpoch, EveryStep, FixedPeriod, Once, Switch
from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.control_slots import Contribution, Control, Flags
from raysgd_local.state.replica_state import ReplicaState
from raysgd_local.training.exchange.plain import Installing, Reduction
from raysgd_local.transport.in_process import InProcessNetwork


def exchange(models: list[nn.Module], rounds: int = 1, mode: Mode = "parameters") -> list[list[Control]]:
    """All average, several times; their models are what was committed last."""
    network = InProcessNetwork()

    def member(rank: int) -> list[Control]:
        algorithm = Algorithm(schedule=FixedPeriod(1))
        reduction = Reduction(ReplicaState(models[rank]), network.allocate, len(models), algorithm)
        reduction.seat(len(models))
        transport = network.connect(1, rank, len(models))
        controls = []
        for round in range(1, rounds + 1):
            controls.append(reduction.reduce(transport, mode, round, Contribution(weight=2.0, samples=2)))
            if reduction.finite():
                reduction.commit(Installing(mode, mode, lambda _: None), controls[-1])
        return controls

    with ThreadPoolExecutor(len(models)) as pool:
        return list(pool.map(member, range(len(models))))


def wide_models(count: int) -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(*(nn.Linear(600, 600) for _ in range(3))) for _ in range(count)]


def spoil(models: Iterable[nn.Module]) -> None:
    """In the last part: the others are on their way by then."""
    with torch.no_grad():
        for model in models:
            model[2].weight[5, 5] = float("nan")


def test_state_found_not_finite_on_its_way_counts_for_nothing() -> None:
    models = wide_models(3)
    spoil([models[1]])
    mean = [(a + b).detach() / 2 for a, b in zip(models[0].parameters(), models[2].parameters(), strict=True)]
    for (control,) in exchange(models):
        assert control.ranks(Flags.NONFINITE) == (1,)
        assert [said.weight for said in control.members] == [2.0, 0.0, 2.0]
    for model in models:
        for parameter, expected in zip(model.parameters(), mean, strict=True):
            assert torch.equal(parameter.detach(), expected)


def test_where_nobodys_state_is_finite_nothing_is_installed() -> None:
    models = wide_models(2)
    spoil(models)
    for (control,) in exchange(models):
        assert control.ranks(Flags.NONFINITE) == (0, 1)
        assert control.weight == 0
    assert all(model[2].weight.isnan().sum() == 1 for model in models)


@pytest.mark.parametrize("mode", ["parameters", "gradients"])
def test_the_checksum_of_what_was_committed_last_is_in_the_slots(mode: Mode) -> None:
    for first, second, third in exchange(wide_models(2), rounds=3, mode=mode):
        assert {said.checksum for said in first.members} == {0}
        for control in (second, third):
            assert control.agreed
            assert control.members[0].checksum


def test_members_that_end_training_alone_are_equal_though_nobody_trained_since_their_mean() -> None:
    models, network = wide_models(2), InProcessNetwork()

    def member(rank: int) -> None:
        algorithm = Algorithm(schedule=Switch(Once(), EveryStep(), AtEpoch(1)))
        reduction = Reduction(ReplicaState(models[rank]), network.allocate, 2, algorithm)
        reduction.seat(2)
        transport = network.connect(1, rank, 2)
        for round, weight, then in [(1, 2.0, "apart"), (2, 0.0, "gradients")]:
            control = reduction.reduce(transport, "apart", round, Contribution(weight=weight, samples=int(weight)))
            reduction.commit(Installing("apart", then, lambda _: None), control)

    mean = [(a + b).detach() / 2 for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(member, range(2)))
    for model in models:
        torch.testing.assert_close([p.detach() for p in model.parameters()], mean)
