"""One exchange of whole state, between threads."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Elastic
from raysgd_local.algorithms.compression import Half, TopK
from raysgd_local.algorithms.outer import SlowMo
from raysgd_local.algorithms.schedules import AtEpoch, EveryStep, FixedPeriod, Once, Switch
from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.control_slots import Contribution, Control, Flags
from raysgd_local.errors import InputError
from raysgd_local.state.replica_state import ReplicaState
from raysgd_local.training.exchange.factory import make_reduction
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


def adapted(count: int) -> list[nn.Module]:
    """Models with a frozen layer of 2 to the 16 elements, and 512 that train."""
    models = []
    for _ in range(count):
        torch.manual_seed(0)
        base = nn.Linear(256, 256, bias=False).requires_grad_(False)
        models.append(nn.Sequential(base, nn.Linear(256, 2, bias=False)))
    return models


@pytest.mark.parametrize("mode", ["parameters", "gradients"])
def test_a_round_sends_what_trains_alone(mode: Mode) -> None:
    models = adapted(2)
    frozen = models[0][0].weight.clone()
    reduction = Reduction(
        ReplicaState(models[0]), InProcessNetwork().allocate, 2, Algorithm(schedule=FixedPeriod(1))
    )
    reduction.seat(2)
    assert 512 <= reduction._used <= 512 + 2 * 64  # the rest is the members' control slots
    exchange(models, rounds=3, mode=mode)
    assert all(torch.equal(model[0].weight, frozen) for model in models)


@pytest.mark.parametrize("mode", ["parameters", "gradients"])
def test_a_worker_whose_frozen_weights_differ_is_found_in_its_first_round(mode: Mode) -> None:
    models = adapted(2)
    models[1][0].weight[100, 100] += 1e-6
    with pytest.raises(InputError, match=r"frozen parameters: '0.weight'"):
        exchange(models, mode=mode)


class Growing(nn.Linear):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(2, 1)
        self.register_buffer("seen", torch.zeros(2, dtype=dtype))


@pytest.mark.parametrize(
    ("dtype", "rules"), [(torch.float32, "mean, keep"), (torch.int64, "max, same, keep")], ids=["float", "integer"]
)
@pytest.mark.parametrize("seen", [3, 1, 0, None])
def test_a_buffer_that_changes_its_shape_is_named_with_its_rules_before_anything_is_sent(
    dtype: torch.dtype, rules: str, seen: int | None
) -> None:
    model = Growing(dtype)
    network = InProcessNetwork()
    reduction = Reduction(ReplicaState(model), network.allocate, 1, Algorithm(schedule=FixedPeriod(1)))
    reduction.seat(1)
    model.seen = None if seen is None else torch.zeros(seen, dtype=dtype)
    transport = network.connect(1, 0, 1)
    with pytest.raises(InputError, match=f"buffers.seen: .* is not allowed; allowed: {rules}; and only with keep"):
        reduction.reduce(transport, "parameters", 1, Contribution(weight=1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_a_buffer_that_is_kept_may_change_its_shape_on_each_worker(dtype: torch.dtype) -> None:
    models = [Growing(dtype) for _ in range(2)]
    states = [ReplicaState(model, buffers={"seen": "keep"}) for model in models]
    models[1].seen = torch.ones(5, dtype=dtype)
    kept = states[1].snapshot()
    models[1].seen = torch.ones(7, dtype=dtype)
    for state in states:
        state.check()
    states[1].restore(kept)
    assert [model.seen.numel() for model in models] == [2, 5]


@pytest.mark.parametrize(
    "algorithm",
    [
        Algorithm(FixedPeriod(1), averaging=Elastic()),
        Algorithm(FixedPeriod(1), outer=SlowMo()),
        Algorithm(FixedPeriod(1), compression=TopK(0.1)),
        Algorithm(FixedPeriod(1), compression=Half(), outer=SlowMo()),
        Algorithm(Once()),
    ],
    ids=["elastic", "outer", "top-k", "half-outer", "once"],
)
def test_frozen_parameters_are_in_no_methods_state(algorithm: Algorithm) -> None:
    models, network = adapted(2), InProcessNetwork()
    frozen = models[0][0].weight.clone()

    def member(rank: int) -> Reduction:
        reduction = make_reduction(ReplicaState(models[rank]), network.allocate, 2, algorithm)
        reduction.seat(2)
        transport = network.connect(1, rank, 2)
        for round in (1, 2, 3):
            with torch.no_grad():
                models[rank][1].weight.add_(0.1 * (rank + 1))
            said = Contribution(weight=1.0 + rank, samples=1, lr=0.1)
            control = reduction.reduce(transport, "parameters", round, said)
            reduction.commit(Installing("parameters", "parameters", lambda _: None), control)
        return reduction

    with ThreadPoolExecutor(2) as pool:
        reductions = list(pool.map(member, range(2)))
    for model, reduction in zip(models, reductions, strict=True):
        assert torch.equal(model[0].weight, frozen)
        assert reduction._anchor.numel == 512
        assert torch.equal(reduction._anchor.flat, reductions[0]._anchor.flat)
        assert (
            reduction.residual is None
            or reduction.residual.before is None
            or (reduction.residual.before.numel() == 512)
        )
