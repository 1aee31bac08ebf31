"""Averaging with some others only, on the real shells: known answers, and who missed the end of a round."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Blocks, Gossip
from raysgd_local.algorithms.compression import Int8
from raysgd_local.algorithms.schedules import Dynamic, FixedPeriod, Hierarchical
from raysgd_local.control.control_slots import Contribution
from raysgd_local.control.replicated.extent import Extent
from raysgd_local.state.replica_state import ReplicaState
from raysgd_local.training.exchange.factory import make_reduction
from raysgd_local.training.exchange.plain import Installing
from raysgd_local.transport.in_process import InProcessNetwork


def loop() -> None:
    ctx = raysgd_local.get_context()
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = ctx.prepare_model(nn.Linear(4, 1).double())
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9))
    for _ in ctx.epochs(2):
        for (inputs,) in ctx.batches(TensorDataset(x), batch_size=2):
            loss = (model(inputs)[:, 0] - inputs.square().sum(1)).square().mean()
            loss.backward()
            ctx.step(loss.detach())


@pytest.fixture
def trained(train_in_threads):
    def train(algorithm: Algorithm, name: str) -> torch.Tensor:
        done = train_in_threads(
            loop,
            workers=4,
            schedule=algorithm.schedule,
            name=name,
            spec={"algorithm": algorithm},
            program={"averaging": algorithm.averaging},
        )
        assert done.result["status"] == "finished", done.outcome.finish
        replica = done.group.shells["w0"].replica
        with replica.shown():
            return torch.cat([p.detach().flatten() for p in replica.models[0].parameters()])

    return train


@pytest.mark.parametrize(
    ("algorithm", "same"),
    [
        (Algorithm(Hierarchical(FixedPeriod(2), FixedPeriod(1)), Blocks(count=2)), FixedPeriod(2)),
        (Algorithm(Hierarchical(FixedPeriod(2), FixedPeriod(4)), Blocks()), FixedPeriod(2)),
        (Algorithm(Hierarchical(FixedPeriod(2), FixedPeriod(4)), Blocks(count=4)), FixedPeriod(8)),
        (Algorithm(Dynamic(every=1, delta=0.0)), FixedPeriod(1)),
        (Algorithm(Dynamic(every=2, delta=1e9, most=10**6)), FixedPeriod(1000)),
        (Algorithm(FixedPeriod(2), Gossip("complete")), FixedPeriod(2)),
    ],
    ids=["global every time", "one block", "blocks of one", "no distance", "any distance", "gossip with all"],
)
def test_at_its_limits_it_is_local_sgd(trained, algorithm, same):
    torch.testing.assert_close(
        trained(algorithm, "this"), trained(Algorithm(same), "that"), rtol=1e-10, atol=1e-12
    )


ALGORITHMS = {
    "gossip": Algorithm(FixedPeriod(2), Gossip("ring")),
    "blocks": Algorithm(Hierarchical(FixedPeriod(2)), Blocks(count=2)),
    "gossip int8": Algorithm(FixedPeriod(2), Gossip("ring"), compression=Int8()),
    "blocks int8": Algorithm(Hierarchical(FixedPeriod(2)), Blocks(count=2), compression=Int8()),
}


def in_view(network, view, members, work):
    """`work(transport, member)` of all members at once."""
    found = {}

    def run(rank, member):
        found[member] = work(network.connect(view, rank, len(members)), member)

    threads = [threading.Thread(target=run, args=one) for one in enumerate(members)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return found


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_who_missed_the_vote_commits_what_it_has_and_is_where_it_would_have_been(name, whole):
    algorithm, network = ALGORITHMS[name], InProcessNetwork()
    torch.manual_seed(1)
    models = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(8)]  # the last four are twins
    reductions = []
    for model in models:
        model.load_state_dict(models[0].state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        state = ReplicaState(model, [optimizer])
        reductions.append(make_reduction(state, lambda n, dtype: torch.zeros(n, dtype=dtype), 4, algorithm))
    for member, model in enumerate(models):
        generator = torch.Generator().manual_seed(member % 4)
        model[0].weight.data.add_(torch.randn(4, 3, generator=generator))
    how = Installing("parameters", "parameters", lambda control: None)

    def reach(control):
        return Extent(whole, tuple(said.weight / control.weight for said in control.members), (0, 0, 1, 1))

    def exchange(transport, member, commits):
        reduction = reductions[member]
        reduction.seat(4)
        said = Contribution(weight=1.0 + member % 4, samples=1 + member % 4)
        control = reduction.reduce(transport, "partial", 3, said, reach)
        if commits(member):
            reduction.commit(how, control)

    in_view(network, 1, [0, 1, 2, 3], lambda t, member: exchange(t, member, lambda member: member != 2))
    in_view(network, 2, [4, 5, 6, 7], lambda t, member: exchange(t, member, lambda member: True))
    assert not all(torch.equal(a, b) for a, b in zip(models[2].parameters(), models[6].parameters(), strict=True))
    in_view(network, 3, [1, 2, 3], lambda t, member: reductions[member].heal(t, 2, member == 2, how))
    for model, twin in zip(models, models[4:], strict=False):
        for a, b in zip(
            [*model.parameters(), *model.buffers()], [*twin.parameters(), *twin.buffers()], strict=True
        ):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["gossip", "blocks"])
def test_an_ill_member_goes_to_the_mean_and_spoils_nobody(train_in_threads, name):
    algorithm = ALGORITHMS[name]
    spoilt = threading.Event()

    def spoiling() -> None:
        ctx = raysgd_local.get_context()
        torch.manual_seed(0)
        x = torch.randn(64, 4)
        model = ctx.prepare_model(nn.Linear(4, 1))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.05))
        for _ in ctx.epochs(2):
            for (inputs,) in ctx.batches(TensorDataset(x), batch_size=2):
                loss = model(inputs).square().mean()
                loss.backward()
                if ctx.rank == 1 and ctx._shell.state.round == 3 and not spoilt.is_set():
                    spoilt.set()
                    model.weight.grad.fill_(float("nan"))
                ctx.step(loss.detach())

    done = train_in_threads(
        spoiling,
        workers=4,
        schedule=algorithm.schedule,
        spec={"algorithm": algorithm},
        program={"averaging": algorithm.averaging},
    )
    assert spoilt.is_set()
    assert done.result["status"] == "finished", done.outcome.finish
    assert all(bool(torch.isfinite(tensor).all()) for model in done.models() for tensor in model)
