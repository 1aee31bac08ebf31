"""Every method on the real shells against the oracle, over rounds in which members die and join."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import oracle
import pytest
import torch
from orders import given_state
from quadratics import CURVATURE, RATE, Quadratics
from torch import nn

import raysgd_local
from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Blocks, Elastic, Gossip, Mean
from raysgd_local.algorithms.compression import Int8, Sign, TopK
from raysgd_local.algorithms.outer import BlockMomentum, MaxChange, OuterOptimizer, SlowMo
from raysgd_local.algorithms.schedules import (
    AtEpoch,
    Dynamic,
    EveryStep,
    FixedPeriod,
    Hierarchical,
    Once,
    Stability,
    Switch,
)
from raysgd_local.algorithms.schedules.modes import modes
from raysgd_local.algorithms.weights import FedNova


class Point(nn.Module):
    """x (6,), as two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.full((2, 2), 3.0, dtype=torch.float64))
        self.b = nn.Parameter(torch.full((2,), -2.0, dtype=torch.float64))

    def x(self) -> torch.Tensor:
        return torch.cat([self.a.flatten(), self.b])


@dataclass
class Log:
    """What every member did: its steps by round, with their samples and rates; and the model after each epoch."""

    steps: dict[int, list[tuple[str, list[int], float]]] = field(default_factory=lambda: defaultdict(list))
    models: list[tuple[int, torch.Tensor]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)


def loop_over(
    data: Quadratics, log: Log, epochs: int, deaths: dict[str, int], kill: Any, rho: float
) -> Callable[[], None]:
    def loop() -> None:
        ctx = raysgd_local.get_context()
        shell, model = ctx._shell, ctx.prepare_model(Point())
        optimizer = ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=RATE, momentum=rho))
        ctx.prepare_scheduler(lambda done: 1 / (1 + done))
        name = shell.place.worker
        for _ in ctx.epochs(epochs):
            for index in ctx.batches(data, batch_size=3):
                loss = (0.5 * CURVATURE * (model.x() - data.targets[index]) ** 2).sum(1).mean()
                loss.backward()
                number = shell.state.round + 1
                if number >= deaths.get(name, 10**9):
                    raise kill
                tries = ctx.probing
                ctx.step(loss.detach())
                if tries:
                    continue
                with log.lock:
                    log.steps[number].append((name, index.tolist(), optimizer.param_groups[0]["lr"]))
            if ctx.rank == 0 and not shell.member.goes_on:  # else the next epoch has begun within this round
                log.models.append((shell.state.round, shown(ctx)))

    return loop


def shown(ctx: Any) -> torch.Tensor:
    with ctx._shell.replica.shown():
        return ctx._shell.replica.models[0].x().detach().clone()


def replay(
    log: Log,
    done: Any,
    data: Quadratics,
    method: oracle.Method,
    last: oracle.Method,
    rho: float,
    reset: bool = False,
    partial: bool = False,
) -> tuple[list[torch.Tensor], float]:
    """The anchors after each round, of which the last is by `last`; and what the dead had left out, as they told it."""
    fleet, anchors, lost = oracle.Fleet(Point().x().detach(), method, rho), [], 0.0
    norms, told = {}, {}  # by member, after the newest round, and the one before
    views = {order.view.number: order for order in done.group.orders}
    donors: dict[str, str] = {}  # a view that broke may have given state already
    for order in done.group.orders:
        donors |= given_state(order)
    for row in done.rows():
        number, order = int(row["round"]), views[int(row["view"])]
        members = order.view.members
        donor = next((donors.get(name) for name in members if name not in fleet.names), None)
        lost += sum(norm for name, norm in told.items() if name not in members)
        fleet.have(members, donor)
        fleet.begin()
        steps = [step for step in log.steps[number] if step[0] in members]
        for name, batch, rate in steps:
            target = data.targets[batch].mean(0)
            fleet.local_step(name, lambda x, target=target: CURVATURE * (x - target), rate)
        weights = [sum(len(batch) for who, batch, _ in steps if who == name) for name in members]
        fleet.memory.steps = [sum(who == name for who, _, _ in steps) for name in members]
        # One step from the anchor and then the mean is a step by the mean gradient.
        plain = oracle.mean if row["tau"] == "1" else oracle.globally if row["scope"] == "global" else None
        ends = number == len(done.rows())
        asked = plain if partial or row["tau"] == "1" else last if ends else None
        fleet.average(weights, float(row["lr"]), asked)
        anchors.append(fleet.memory.anchor)
        told = {name: norms.get(name, 0.0) for name in members}
        norms = dict(zip(members, fleet.memory.local.norm(dim=1).tolist(), strict=True))
        if reset:
            fleet.buffers.zero_()
    return anchors, lost


METHODS = {
    "mean": (Algorithm(FixedPeriod(3)), oracle.mean),
    "once": (Algorithm(Once()), oracle.once),
    "elastic": (Algorithm(FixedPeriod(3), averaging=Elastic(beta=0.8)), oracle.elastic(0.8)),
    "block momentum": (
        Algorithm(FixedPeriod(3), outer=BlockMomentum()),
        oracle.heavy_ball(1.0, lambda m: 1 - 1 / m),
    ),
    "nesterov block momentum": (
        Algorithm(FixedPeriod(3), outer=BlockMomentum(zeta=0.9, momentum=0.5, nesterov=True)),
        oracle.heavy_ball(0.9, lambda m: 0.5, nesterov=True),
    ),
    "slowmo": (
        Algorithm(FixedPeriod(3), outer=SlowMo(beta=0.4, alpha=0.9)),
        oracle.heavy_ball(0.9, lambda m: 0.4, unit=lambda rate: rate),
    ),
    "diloco": (
        Algorithm(FixedPeriod(3), outer=OuterOptimizer("SGD", 0.7, {"momentum": 0.9, "nesterov": True})),
        oracle.heavy_ball(0.7, lambda m: 0.9, nesterov=True),
    ),
    "fedadam": (
        Algorithm(FixedPeriod(3), outer=OuterOptimizer("Adam", 0.05, {"betas": [0.9, 0.99], "eps": 1e-3})),
        oracle.adam(0.05, 0.9, 0.99, 1e-3),
    ),
    "slowmo after the switch": (
        Algorithm(Switch(EveryStep(), FixedPeriod(3), AtEpoch(2)), outer=SlowMo(beta=0.4)),
        oracle.heavy_ball(1.0, lambda m: 0.4, unit=lambda rate: rate),
    ),
    "stability switch": (
        Algorithm(Switch(EveryStep(), FixedPeriod(3), Stability(5, held_out=2, epsilon=0.5))),
        oracle.mean,
    ),
    "int8": (
        Algorithm(FixedPeriod(3), compression=Int8(block=6)),
        oracle.gathered_up_to(2, oracle.compressed(oracle.by_steps), oracle.compressed_by_shards(oracle.by_steps)),
    ),
    "top-k": (
        Algorithm(FixedPeriod(3), compression=TopK(0.17)),
        oracle.compressed(oracle.largest(1)),
    ),
    "sign": (
        Algorithm(FixedPeriod(3), compression=Sign()),
        oracle.compressed(oracle.signs([4, 2])),
    ),
    "elastic int8": (
        Algorithm(FixedPeriod(3), averaging=Elastic(0.8), compression=Int8(block=6)),
        oracle.elastic_compressed(0.8, oracle.by_steps),
    ),
    "fednova": (Algorithm(FixedPeriod(3), weights=FedNova()), oracle.fednova(lambda steps: steps)),
    "fednova with momentum": (
        Algorithm(FixedPeriod(3), weights=FedNova(), optimizer_state="reset"),
        oracle.fednova(lambda steps: sum((1 - 0.9**k) / 0.1 for k in range(1, steps + 1))),
    ),
    "gossip": (Algorithm(FixedPeriod(3), averaging=Gossip("ring")), oracle.gossip(oracle.ring)),
    "gossip with all": (
        Algorithm(FixedPeriod(3), averaging=Gossip("complete")),
        oracle.gossip(lambda round, m: torch.full((m, m), 1 / m, dtype=torch.float64)),
    ),
    "hierarchical": (
        Algorithm(Hierarchical(FixedPeriod(2), FixedPeriod(3)), averaging=Blocks(count=2)),
        oracle.in_blocks(lambda m: [rank * 2 // m for rank in range(m)]),
    ),
    "dynamic": (
        Algorithm(Dynamic(every=2, delta=0.3, most=4)),
        oracle.in_blocks(lambda m: list(range(m))),
    ),
    "fedavg": (Algorithm(FixedPeriod(3), averaging=Mean(fraction=0.5)), oracle.mean),
    "max change": (Algorithm(FixedPeriod(3), outer=MaxChange(0.2)), oracle.max_change(0.2)),
}


SCOPES = {
    "gossip": ["neighbours"],
    "gossip with all": ["neighbours"],
    "hierarchical": ["block"],
    "dynamic": ["own"],
}
"""Of rounds that are not over all members."""

LAST = {  # a compressed run's last round
    "int8": oracle.compressed(oracle.whole),
    "top-k": oracle.compressed(oracle.whole),
    "sign": oracle.compressed(oracle.whole),
    "elastic int8": oracle.elastic_compressed(0.8, oracle.whole),
}


ACROSS = ("mean", "elastic", "slowmo", "int8", "gossip", "hierarchical", "fedavg")
"""Methods that are tried where rounds go across epochs, too."""


@pytest.mark.parametrize(
    ("name", "across"), [*((name, False) for name in METHODS), *((name, True) for name in ACROSS)]
)
def test_the_engine_does_what_the_oracle_does_while_members_die_and_join(train_in_threads, killed, name, across):
    algorithm, method = METHODS[name]
    rho = (
        0.0 if "switch" in name or name == "fednova" else 0.9
    )  # local momentum is kept, and a joiner has its donor's
    data, log = Quadratics(40 if name == "once" else 401), Log()
    epochs = 100 if name == "once" else 9
    deaths = {"w1": 13, "w3": 13, "w4": 31, "w0": 52}
    done = train_in_threads(
        loop_over(data, log, epochs, deaths, killed, rho),
        workers=4,
        schedule=algorithm.schedule,
        spec={"algorithm": algorithm},
        program={"averaging": algorithm.averaging, "across_epochs": across},
    )
    assert done.result["status"] == "finished", done.outcome.finish
    assert done.result["samples_lost"] == done.result["samples_repeated"] == 0
    assert done.result["workers_lost"] >= 3
    assert len(done.rows()) >= 100
    partial = "partial" in modes(algorithm.schedule)
    assert {row["scope"] for row in done.rows()} == {"global", *SCOPES.get(name, ())}
    reset = algorithm.optimizer_state == "reset"
    anchors, lost = replay(log, done, data, method, LAST.get(name, method), rho, reset, partial)
    for number, model in log.models:
        torch.testing.assert_close(model, anchors[number - 1], rtol=0, atol=1e-6)
    assert done.result["residual_lost"] == pytest.approx(lost, rel=1e-6)
    assert bool(lost) == (name in ("int8", "top-k", "sign"))
