"""What can't be combined is refused with its reason."""

from __future__ import annotations

import pytest

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Blocks, Elastic, Gossip, Mean
from raysgd_local.algorithms.compatibility import check_workers
from raysgd_local.algorithms.compression import Int8, Sign, TopK
from raysgd_local.algorithms.outer import BlockMomentum, OuterOptimizer, SlowMo
from raysgd_local.algorithms.schedules import (
    AtEpoch,
    Delayed,
    Dynamic,
    EveryStep,
    FixedPeriod,
    Hierarchical,
    Once,
    Switch,
)
from raysgd_local.algorithms.weights import FedNova
from raysgd_local.errors import InputError


@pytest.mark.parametrize(
    ("choices", "field", "reason"),
    [
        ({"schedule": EveryStep(), "outer": SlowMo()}, "outer", "tau 1"),
        ({"schedule": EveryStep(), "averaging": Elastic()}, "averaging", "tau 1"),
        ({"schedule": Switch(), "averaging": Elastic()}, "averaging", "tau 1"),
        ({"schedule": EveryStep(), "optimizer_state": "reset"}, "optimizer_state", "tau 1"),
        (
            {"schedule": FixedPeriod(), "averaging": Elastic(), "outer": SlowMo()},
            "outer",
            "moves the centre already",
        ),
        ({"schedule": Once(), "outer": OuterOptimizer()}, "outer", "a single step"),
        ({"schedule": Switch(), "averaging": Gossip()}, "averaging", "tau 1"),
        ({"averaging": Gossip(), "outer": SlowMo()}, "outer", "there is no mean step"),
        ({"averaging": Gossip(), "compression": TopK()}, "compression", "without error feedback"),
        ({"averaging": Gossip(), "schedule": Dynamic()}, "schedule", "only decide when"),
        ({"averaging": Gossip(), "schedule": Once()}, "schedule", "only decide when"),
        ({"averaging": Gossip(), "weights": FedNova()}, "weights", "members keep their own"),
        ({"averaging": Gossip(), "optimizer_state": "average"}, "optimizer_state", "than the parameters"),
        ({"averaging": Elastic(), "schedule": Dynamic()}, "schedule", "never at the centre"),
        ({"averaging": Elastic(), "schedule": Hierarchical()}, "schedule", "never at the centre"),
        ({"averaging": Blocks()}, "averaging", "hierarchical decides when"),
        ({"schedule": Hierarchical()}, "averaging", "kind: blocks"),
        (
            {"schedule": Switch(Dynamic(), Hierarchical()), "averaging": Blocks()},
            "schedule",
            "compares the distances of all members",
        ),
        ({"schedule": Dynamic(), "averaging": Mean(0.5)}, "averaging.fraction", "no distance to check"),
        ({"schedule": Dynamic(), "weights": FedNova()}, "weights", "members keep their own"),
        ({"schedule": Dynamic(), "optimizer_state": "average"}, "optimizer_state", "than the parameters"),
        ({"schedule": EveryStep(), "averaging": Mean(0.5)}, "averaging.fraction", "tau 1"),
        ({"schedule": Switch(), "weights": FedNova()}, "weights", "tau 1"),
        ({"schedule": Once(), "averaging": Mean(0.5)}, "averaging.fraction", "left out of the model"),
        ({"schedule": Once(), "weights": FedNova()}, "weights", "members keep their own"),
        ({"averaging": Elastic(), "weights": FedNova()}, "weights", "members keep their own"),
        ({"schedule": Delayed(), "averaging": Elastic()}, "averaging", "applied later"),
        ({"schedule": Delayed(Dynamic())}, "schedule", "distances of all members"),
        ({"schedule": Delayed(), "averaging": Gossip()}, "averaging", "applied later"),
        ({"schedule": Delayed(), "averaging": Mean(0.5)}, "averaging.fraction", "applied later"),
        ({"schedule": Switch(Delayed(), Dynamic(), AtEpoch(1))}, "schedule", "go on meanwhile"),
        ({"schedule": Switch(Delayed(), EveryStep(), AtEpoch(1))}, "schedule", "gone on for some steps"),
        ({"schedule": Switch(Delayed(), Once(), AtEpoch(1))}, "schedule", "gone on for some steps"),
        (
            {"schedule": Delayed(), "weights": FedNova(), "optimizer_state": "reset"},
            "weights",
            "some steps later",
        ),
        ({"outer": BlockMomentum(), "lr_scaling": "linear"}, "lr_scaling", "number of workers by default"),
    ],
)
def test_what_makes_no_sense_together_is_refused_with_the_reason(choices, field, reason):
    with pytest.raises(InputError) as caught:
        Algorithm(**choices)
    assert caught.value.field == field
    assert caught.value.exit_status == 2
    assert reason in caught.value.hint


@pytest.mark.parametrize(
    "choices",
    [
        {"schedule": Switch(), "averaging": Mean(0.5)},
        {"averaging": Gossip(), "compression": Int8()},
        {"schedule": Dynamic(), "outer": SlowMo(), "compression": TopK()},
        {"schedule": Hierarchical(), "averaging": Blocks(), "outer": SlowMo(), "compression": Sign()},
        {"schedule": Switch(EveryStep(), Hierarchical()), "averaging": Blocks()},
        {"weights": FedNova(), "outer": SlowMo()},
        {"schedule": Delayed(), "weights": FedNova(), "outer": SlowMo(), "compression": TopK()},
        {"schedule": Switch(EveryStep(), Delayed())},
        {"schedule": Switch(Delayed(), FixedPeriod(), AtEpoch(1)), "optimizer_state": "average"},
        {"schedule": Switch(), "outer": SlowMo()},
        {"schedule": Switch(), "optimizer_state": "reset"},
        {"outer": BlockMomentum(momentum=0.5), "lr_scaling": "linear"},
        {"outer": BlockMomentum(), "lr_scaling": "sqrt"},
    ],
)
def test_their_neighbours_are_not(choices):
    assert Algorithm(**choices)


def test_a_coupling_that_swings_itself_up_with_the_workers_there_may_be_is_refused():
    algorithm = Algorithm(FixedPeriod(), Elastic(alpha=0.4))
    check_workers(algorithm, 3)
    with pytest.raises(InputError, match=r"4 workers make pull \+ push = 2"):
        check_workers(algorithm, 4)
    check_workers(Algorithm(FixedPeriod(), Elastic(beta=0.99)), 1000)
