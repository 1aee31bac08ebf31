"""Delayed averaging on the real shells: known answers, and the oracle through deaths, joins and epochs' ends."""

from __future__ import annotations

import itertools
from collections import defaultdict
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
from raysgd_local.algorithms.averaging import Blocks
from raysgd_local.algorithms.compression import TopK
from raysgd_local.algorithms.outer import SlowMo
from raysgd_local.algorithms.schedules import AtEpoch, Delayed, EveryStep, FixedPeriod, Hierarchical, Switch
from raysgd_local.control.control_slots import Control


class Point(nn.Module):
    """x (6,)."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.full((6,), 3.0, dtype=torch.float64))


@dataclass
class Life:
    """What one member did: its steps' batches, in order; for each commit by round how many steps it had taken before,
    what all had said, and whether it was healed; and the model after each epoch.
    """

    steps: list[list[int]] = field(default_factory=list)
    commits: dict[int, tuple[int, Control, bool]] = field(default_factory=dict)
    models: list[tuple[int, torch.Tensor]] = field(default_factory=list)


def watch(life: Life, shell: Any) -> None:
    """Note each round that this member's reduction commits, with its number."""
    reduction, round, healing = shell.reduction, [shell.state.round], [False]
    commit, heal = reduction.commit, reduction.heal

    def noted(how: Any, control: Control) -> None:
        round[0] += 1
        life.commits[round[0]] = len(life.steps), control, healing[0]
        commit(how, control)

    def noted_heal(transport: Any, source: int, behind: bool, how: Any) -> None:
        healing[0] = behind
        heal(transport, source, behind, how)
        healing[0] = False

    reduction.commit, reduction.heal = noted, noted_heal


def loop_over(
    data: Quadratics, lives: dict[str, Life], epochs: int, deaths: dict[str, int], kill: Any, rho: float
):
    def loop() -> None:
        ctx = raysgd_local.get_context()
        shell, model = ctx._shell, ctx.prepare_model(Point())
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=RATE, momentum=rho))
        name = shell.place.worker
        life = lives[name]
        for number, _ in enumerate(ctx.epochs(epochs)):
            if not number:
                watch(life, shell)
            for index in ctx.batches(data, batch_size=3):
                loss = (0.5 * CURVATURE * (model.x - data.targets[index]) ** 2).sum(1).mean()
                loss.backward()
                if len(life.steps) >= deaths.get(name, 10**9):
                    raise kill
                life.steps.append(index.tolist())
                ctx.step(loss.detach())
            life.models.append((shell.state.round, shown(ctx)))

    return loop


def shown(ctx: Any) -> torch.Tensor:
    with ctx._shell.replica.shown():
        return ctx._shell.replica.models[0].x.detach().clone()


def replay(
    lives: dict[str, Life],
    done: Any,
    data: Quadratics,
    method: oracle.Method,
    last: oracle.Method,
    rho: float,
    whole: oracle.Method | None = None,
) -> list[torch.Tensor]:
    """The anchors after each round, of which the last is by `last`, and one over all members by `whole`.

    A member's steps since what it gave to a round was launched stay on top of it, but for who is healed: it becomes
    what came of the round.
    """
    fleet, anchors, begun = oracle.Fleet(Point().x.detach(), method, rho), [], defaultdict(int)
    ahead: dict[str, int] = defaultdict(int)  # steps of the open round that are in a member's row already
    views = {order.view.number: order for order in done.group.orders}
    donors: dict[str, str | None] = defaultdict(lambda: None)  # a view that broke may have given state already
    for order in done.group.orders:
        donors |= given_state(order)

    def take(name: str, batch: list[int]) -> None:
        target = data.targets[batch].mean(0)
        fleet.local_step(name, lambda x: CURVATURE * (x - target), RATE)

    for row in done.rows():
        number, order = int(row["round"]), views[int(row["view"])]
        members = order.view.members
        fleet.have(members, next((donors[name] for name in members if name not in fleet.names), None))
        control = next(life.commits[number][1] for life in lives.values() if number in life.commits)
        ends, moves = torch.empty_like(fleet.rows), torch.zeros_like(fleet.rows)
        for rank, name in enumerate(members):
            life, said = lives[name], control.members[rank]
            own = life.steps[begun[name] :]
            for batch in own[ahead[name] : said.steps]:
                take(name, batch)
            ends[rank] = fleet.rows[rank]
            before, _, healed = life.commits.get(number, (begun[name] + said.steps, None, False))
            since = life.steps[begun[name] + said.steps : before]
            for batch in since:
                take(name, batch)
            moves[rank] = 0.0 if healed else fleet.rows[rank] - ends[rank]
            begun[name], ahead[name] = (before, 0) if healed else (begun[name] + said.steps, len(since))
        fleet.rows = ends
        weights = [said.weight for said in control.members]
        plain = oracle.mean if row["tau"] == "1" else whole if row["scope"] == "global" else None
        ends_here = last if number == len(done.rows()) else None
        fleet.average(weights, float(row["lr"]), plain or ends_here)
        fleet.rows += moves
        anchors.append(fleet.memory.anchor)
    return anchors


SHORT, BLOCKS = "one step less than the period", "over all blocks"
METHODS = {
    "mean": (Algorithm(Delayed(FixedPeriod(4), 2)), oracle.mean, 0.9),
    SHORT: (Algorithm(Delayed(FixedPeriod(3), 9)), oracle.mean, 0.9),
    "slowmo": (
        Algorithm(Delayed(FixedPeriod(4), 2), outer=SlowMo(beta=0.4, alpha=0.9)),
        oracle.heavy_ball(0.9, lambda m: 0.4, unit=lambda rate: rate),
        0.9,
    ),
    BLOCKS: (
        Algorithm(Delayed(Hierarchical(FixedPeriod(4), FixedPeriod(2)), 2), averaging=Blocks(count=2)),
        oracle.in_blocks(lambda m: [rank * 2 // m for rank in range(m)]),
        0.9,
    ),
    "after the switch": (Algorithm(Switch(EveryStep(), Delayed(FixedPeriod(4), 2), AtEpoch(2))), oracle.mean, 0.0),
    "top-k": (
        Algorithm(Delayed(FixedPeriod(4), 2), compression=TopK(0.17)),
        oracle.compressed(oracle.largest(1)),
        0.9,
    ),
}
LAST = {"top-k": oracle.compressed(oracle.whole)}


SELDOM = [pytest.param(n, marks=pytest.mark.long) for n in ("after the switch", "top-k", "slowmo", SHORT)]


@pytest.mark.parametrize("name", ["mean", BLOCKS, *SELDOM])
def test_it_does_what_the_oracle_does_while_members_die_and_join(train_in_threads, killed, name):
    algorithm, method, rho = METHODS[name]
    data, lives = Quadratics(401), defaultdict(Life)
    deaths = {
        "w1": 50,
        "w3": 53,
        "w4": 41,
        "w0": 203,
        "w5": 38,
    }  # by step: in flight, and two at nearly the same time
    done = train_in_threads(
        loop_over(data, lives, 13, deaths, killed, rho),
        workers=4,
        schedule=algorithm.schedule,
        spec={"algorithm": algorithm},
        program={"averaging": algorithm.averaging},
    )
    assert done.result["status"] == "finished", done.outcome.finish
    assert done.result["workers_lost"] == 5
    assert done.result["samples_lost"] == done.result["samples_repeated"] == 0
    assert len(done.rows()) >= 100
    whole = oracle.globally if name == BLOCKS else None
    anchors = replay(lives, done, data, method, LAST.get(name, method), rho, whole)
    models = [model for life in lives.values() for model in life.models]
    assert len(models) >= 4 * 9
    for number, model in models:
        torch.testing.assert_close(model, anchors[number - 1], rtol=0, atol=1e-6)


def test_members_do_go_on_while_it_travels(train_in_threads):
    data, lives = Quadratics(96), defaultdict(Life)
    done = train_in_threads(
        loop_over(data, lives, 1, {}, None, 0.0), schedule=Delayed(FixedPeriod(4), 2), spec=SPEC
    )
    control = {round: found[1] for life in lives.values() for round, found in life.commits.items()}
    for rank, name in enumerate(("w0", "w1")):
        taken = [lives[name].commits[round][0] for round in sorted(control)]
        counted = list(itertools.accumulate(control[round].members[rank].steps for round in sorted(control)))
        ahead = [before - after for before, after in zip(taken, counted, strict=True)]
        assert set(ahead[:-1]) == {2}
        assert ahead[-1] == 0
    assert [row["tau"] for row in done.rows()] == ["4"] * 4
    assert float(done.rows()[1]["loss"]) > 0


SPEC = {"algorithm": Algorithm(Delayed(FixedPeriod(4), 2))}


def still(after: int, found: dict[str, list[torch.Tensor]]):
    """A loop whose gradients are zero from step `after` on."""

    def loop() -> None:
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(Point())
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=RATE))
        own = found.setdefault(ctx._shell.place.worker, [])
        for _ in ctx.epochs(1):
            for number, index in enumerate(ctx.batches(Quadratics(96), batch_size=3)):
                gradient = CURVATURE * (model.x.detach() - ctx.rank - index.double().mean())
                model.x.grad = gradient if number < after else torch.zeros_like(gradient)
                ctx.step(0.0)
                own.append(model.x.detach().clone())

    return loop


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_where_nothing_moves_after_the_launch_all_agree_as_many_steps_later(train_in_threads, delay):
    found: dict[str, list[torch.Tensor]] = {}
    schedule = Delayed(FixedPeriod(8), delay)
    done = train_in_threads(still(8, found), schedule=schedule, spec={"algorithm": Algorithm(schedule)})
    assert done.result["status"] == "finished"
    one, other = found["w0"], found["w1"]
    agree = [torch.equal(a, b) for a, b in zip(one, other, strict=True)]
    assert agree == [False] * (7 + delay) + [True] * (16 - 7 - delay)
    if delay:
        torch.testing.assert_close(one[7 + delay], (one[7] + other[7]) / 2, rtol=1e-12, atol=0)


def test_without_a_delay_it_is_what_it_delays(train_in_threads):
    models = []
    for name, schedule in {"delayed": Delayed(FixedPeriod(4), 0), "plain": FixedPeriod(4)}.items():
        lives = defaultdict(Life)
        spec = {"algorithm": Algorithm(schedule)}
        train_in_threads(
            loop_over(Quadratics(96), lives, 2, {}, None, 0.9), schedule=schedule, name=name, spec=spec
        )
        models.append(lives["w0"].models)
    assert [(n, x.tolist()) for n, x in models[0]] == [(n, x.tolist()) for n, x in models[1]]
