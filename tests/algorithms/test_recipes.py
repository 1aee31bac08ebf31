"""Algorithms and recipes; known answers of the methods, on a whole fleet in one array."""

import numpy as np
import pytest

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Elastic, Gossip, Mean
from raysgd_local.algorithms.compression import Sign, TopK
from raysgd_local.algorithms.outer import BlockMomentum, MaxChange, OuterOptimizer, SlowMo
from raysgd_local.algorithms.placement import DisjointChunks, RedundantChunks
from raysgd_local.algorithms.recipes import RECIPES
from raysgd_local.algorithms.recipes.how import HOW
from raysgd_local.algorithms.recipes.what import WHAT
from raysgd_local.algorithms.recipes.when import WHEN
from raysgd_local.algorithms.schedules import (
    QSR,
    AdaComm,
    AtEpoch,
    AtLoss,
    Delayed,
    Dynamic,
    EveryStep,
    FixedPeriod,
    Hierarchical,
    LupaLinear,
    LupaLoss,
    Observation,
    Once,
    Stability,
    Switch,
)
from raysgd_local.algorithms.weights import FedNova, Samples
from raysgd_local.errors import InputError


def train(schedule, gradient, loss, weights, x, rounds, rate, rounds_per_epoch=10):
    """The mean model after each step's or round's averaging: rows are workers, (m, d)."""
    weights = np.array(weights)[:, None]
    rows = np.repeat(np.array([x], dtype=float), len(weights), axis=0)
    state, means, steps = schedule.init(), [], 0
    for number in range(1, rounds + 1):
        losses = loss(rows)
        for _ in range(state.period.tau):
            gradients = gradient(rows)
            if state.period.mode == "gradients":
                gradients = np.broadcast_to((weights * gradients).sum(axis=0), rows.shape)
            rows = rows - rate * gradients
            steps += 1
        rows = np.broadcast_to((weights * rows).sum(axis=0), rows.shape)
        means.append((steps, rows[0].copy()))
        state = schedule.next(
            state, observe(number, float((weights[:, 0] * losses).sum()), steps, rounds_per_epoch)
        )
    return means


def observe(number, loss, steps, rounds_per_epoch):
    epoch = number // rounds_per_epoch
    return Observation(number, loss, 8, 8 * number, steps, epoch, float(number), 1.0, 4)


SCHEDULES = [
    EveryStep(),
    FixedPeriod(5),
    AdaComm(tau0=8, interval_s=5),
    LupaLinear(tau0=2, steps=100, rounds=20),
    LupaLoss(tau0=2),
    QSR(c=3.0),
    Switch(EveryStep(), FixedPeriod(4), AtEpoch(1)),
    Switch(FixedPeriod(3), AdaComm(tau0=6, interval_s=4), AtEpoch(1)),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_with_equal_quadratics_the_mean_moves_as_one_worker_would_whatever_the_schedule(schedule):
    """x̄_t = c̄ + (I − ηH)^t (x_0 − c̄)."""
    curvature, centres = np.array([0.5, 1.5]), np.array([[1.0, 0.0], [0.0, 4.0], [-2.0, 1.0]])
    weights, start, rate = [0.5, 0.3, 0.2], np.array([5.0, -3.0]), 0.1
    centre = np.array(weights) @ centres
    means = train(
        schedule,
        gradient=lambda rows: curvature * (rows - centres),
        loss=lambda rows: (0.5 * curvature * (rows - centres) ** 2).sum(axis=1),
        weights=weights,
        x=start,
        rounds=25,
        rate=rate,
    )
    for steps, mean in means:
        np.testing.assert_allclose(mean, centre + (1 - rate * curvature) ** steps * (start - centre), rtol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "expected"), [(FixedPeriod(1), 0.66667), (EveryStep(), 0.66667), (FixedPeriod(5), 0.29131)]
)
def test_with_unequal_quadratics_the_fixed_point_depends_on_the_period(schedule, expected):
    curvature, centres = np.array([[0.2], [0.5], [1.0]]), np.array([[-1.0], [0.0], [2.0]])
    means = train(
        schedule,
        gradient=lambda rows: curvature * (rows - centres),
        loss=lambda rows: (0.5 * curvature * (rows - centres) ** 2)[:, 0],
        weights=[0.5, 0.3, 0.2],
        x=[0.0],
        rounds=400,
        rate=0.5,
    )
    assert means[-1][1][0] == pytest.approx(expected, abs=5e-6)


def test_post_local_sgd_is_bitwise_every_step_up_to_the_switch_and_local_from_there():
    curvature, centres = np.array([[0.2], [0.5], [1.0]]), np.array([[-1.0], [0.0], [2.0]])
    same = {
        "gradient": lambda rows: curvature * (rows - centres),
        "loss": lambda rows: (0.5 * curvature * (rows - centres) ** 2)[:, 0],
        "weights": [0.5, 0.3, 0.2],
        "x": [3.0],
        "rounds": 20,
        "rate": 0.5,
    }
    post_local = train(Switch(EveryStep(), FixedPeriod(5), AtEpoch(1)), **same)
    every_step = train(EveryStep(), **same)
    assert post_local[:10] == every_step[:10]
    assert post_local[10][0] == 15
    assert post_local[-1][1] != every_step[-1][1]


def test_the_recipes_are_the_methods_people_know():
    schedules = {recipe.name: recipe.algorithm.schedule for recipe in WHEN}
    assert schedules == {
        "sync-sgd": EveryStep(),
        "local-sgd": FixedPeriod(16),
        "k-avg": FixedPeriod(8),
        "pr-sgd": FixedPeriod(16),
        "sparknet": FixedPeriod(50),
        "adacomm": AdaComm(16, 60.0, 0.5),
        "post-local-sgd": Switch(EveryStep(), FixedPeriod(16)),
        "stability-switch": Switch(EveryStep(), FixedPeriod(16), Stability()),
        "lupa-sgd": LupaLoss(),
        "delayed-averaging": Delayed(FixedPeriod(16), 4),
        "hierarchical-sgd": Hierarchical(FixedPeriod(8), FixedPeriod(4)),
        "dynamic-averaging": Dynamic(4, 1.0, 16),
        "qsr": QSR(),
        "one-shot": Once(),
        "swap": Switch(EveryStep(), Once(), AtLoss(0.3)),
    }
    steps = {recipe.name: (recipe.algorithm.averaging, recipe.algorithm.outer) for recipe in HOW}
    assert steps == {
        "easgd": (Elastic(0.9), None),
        "eamsgd": (Elastic(0.9), None),
        "d-psgd": (Gossip("ring"), None),
        "gossip-sgd": (Gossip("pairs"), None),
        "bmuf": (Mean(), BlockMomentum()),
        "slowmo": (Mean(), SlowMo(0.2)),
        "diloco": (Mean(), OuterOptimizer("SGD", 0.7, {"momentum": 0.9, "nesterov": True})),
        "fedavgm": (Mean(), OuterOptimizer("SGD", 1.0, {"momentum": 0.9})),
        "fedadam": (Mean(), OuterOptimizer("Adam", 0.01, {"betas": [0.9, 0.99], "eps": 1e-3})),
        "povey-max-change": (Mean(), MaxChange(2.0)),
    }
    assert {recipe.name: recipe.algorithm.compression for recipe in WHAT} == {
        "topk-local-sgd": TopK(0.01),
        "ef-sign-local-sgd": Sign(),
        "ri-sgd": None,
        "fedavg": None,
        "fednova": None,
    }
    assert RECIPES["fedavg"].algorithm.averaging == Mean(fraction=0.5)
    assert RECIPES["fednova"].algorithm.weights == FedNova()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_every_recipe_says_what_it_is_in_one_line_and_names_its_source(recipe):
    assert RECIPES[recipe.name] is recipe
    assert "\n" not in recipe.summary
    assert len(recipe.summary) < 100
    assert all((recipe.formula, recipe.traps))
    assert any(str(year) in recipe.citation for year in range(2009, 2026))


def test_an_algorithm_is_adacomm_on_disjoint_chunks_unless_told():
    assert Algorithm() == Algorithm(AdaComm(), Mean(), None, None, DisjointChunks(), "keep", "none", Samples())
    assert Algorithm(placement=RedundantChunks(3)).placement.copies == 3


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"schedule": "adacomm"}, "schedule"),
        ({"schedule": AdaComm}, "schedule"),
        ({"placement": "redundant"}, "placement"),
        ({"averaging": Elastic}, "averaging"),
        ({"averaging": "mean"}, "averaging"),
        ({"outer": "slowmo"}, "outer"),
        ({"compression": "int8"}, "compression"),
        ({"optimizer_state": "kept"}, "optimizer_state"),
        ({"weights": "fednova"}, "weights"),
        ({"lr_scaling": "root"}, "lr_scaling"),
    ],
)
def test_choices_that_do_not_exist_are_refused_by_name(options, field):
    with pytest.raises(InputError) as caught:
        Algorithm(**options)
    assert caught.value.field == field
