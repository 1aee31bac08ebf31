"""Draw methods from a seed: every choice, and every combination that is allowed."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Averaging, Blocks, Elastic, Gossip, Mean
from raysgd_local.algorithms.compression import Int8, TopK
from raysgd_local.algorithms.outer import BlockMomentum
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
    Schedule,
    Stability,
    Switch,
)
from raysgd_local.algorithms.weights import FedNova, Samples
from raysgd_local.errors import InputError


def random_method(random: Random, plain: Schedule) -> Algorithm:
    """Draw a method. A third of all are the schedule `plain` alone."""
    if random.random() < 0.35:
        return Algorithm(plain)
    while True:
        try:
            return _extended(random, _drawn(random, plain))
        except InputError:  # a combination that is not allowed
            continue


def _extended(random: Random, method: Algorithm) -> Algorithm:
    """Draw the newer schedules last, so that all other seeds draw the same methods as before."""
    if random.random() < 0.1:
        tries = Stability(random.choice((1, 2, 5)), held_out=2, epsilon=random.choice((1e-6, 0.02, 0.9)))
        then = random.choice((FixedPeriod(1), FixedPeriod(2), FixedPeriod(3), Dynamic(2, 1e-2, 5)))
        return replace(method, schedule=Switch(EveryStep(), then, tries))
    if random.random() < 0.15:
        every = random.choice((FixedPeriod(2), FixedPeriod(5), AdaComm(6, interval_s=1.0), LupaLoss(2)))
        late = Delayed(every, random.choice((1, 2, 4)))
        return replace(method, schedule=random.choice((late, late, Switch(EveryStep(), late, AtEpoch(1)))))
    if isinstance(method.averaging, Blocks) and random.random() < 0.3:
        return replace(method, schedule=Delayed(method.schedule, random.choice((1, 2, 4))))
    return method


def _drawn(random: Random, plain: Schedule) -> Algorithm:
    schedule = random.choice((plain, plain, _schedule(random)))
    averaging = _averaging(random)
    if isinstance(averaging, Blocks) or random.random() < 0.1:
        schedule, averaging = _hierarchical(random), Blocks(count=random.choice((None, 1, 2, 3)))
    return Algorithm(
        schedule,
        averaging,
        outer=random.choice((None, None, BlockMomentum(momentum=0.5))),
        compression=random.choice((None, None, Int8(), TopK())),
        weights=random.choice((Samples(), Samples(), FedNova())),
    )


def _averaging(random: Random) -> Averaging:
    kinds: list[Any] = [
        Mean(),
        Mean(),
        Mean(fraction=random.choice((0.3, 0.6))),
        Elastic(beta=0.8),
        Gossip(random.choice(("ring", "torus", "exponential", "pairs", "complete"))),
        Blocks(),
    ]
    averaging: Averaging = random.choice(kinds)
    return averaging


def _hierarchical(random: Random) -> Schedule:
    across = random.choice((FixedPeriod(2), FixedPeriod(4), AdaComm(4, interval_s=1.0)))
    return Hierarchical(FixedPeriod(random.choice((1, 2, 4))), across)


def _schedule(random: Random) -> Schedule:
    dynamic = Dynamic(random.choice((1, 2, 4)), random.choice((0.0, 1e-4, 1e-2, 1.0)), random.choice((2, 5, 100)))
    kinds: list[Any] = [
        LupaLinear(1, 40, 8),
        LupaLoss(1),
        QSR(0.2, 2),
        Once(),
        dynamic,
        dynamic,
        Switch(EveryStep(), Once(), AtEpoch(1)),
        Switch(Once(), EveryStep(), AtEpoch(1)),
        Switch(dynamic, EveryStep(), AtEpoch(1)),
        Switch(EveryStep(), dynamic, AtEpoch(1)),
    ]
    schedule: Schedule = random.choice(kinds)
    return schedule
