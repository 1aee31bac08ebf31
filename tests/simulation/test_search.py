"""Random clusters, methods, loops and faults: the invariants hold after every event."""

import pytest

from raysgd_local.faults import parse, written
from raysgd_local.simulation import search
from raysgd_local.simulation.scenario import random_scenario
from raysgd_local.simulation.trial import Ended


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_no_invariant_is_violated(first):
    failure = search.first_failure(range(first, first + 50))
    assert failure is None, str(failure)


def test_a_run_without_faults_finishes_and_loses_nobody():
    outcomes = [search.attempt(random_scenario(seed, faults=0)) for seed in range(30)]
    calm = [o for o in outcomes if isinstance(o, Ended) and not o.controller.losses]
    assert len(calm) > 15
    assert {o.finish.status for o in calm} == {"finished"}


def test_who_decides_to_leave_after_a_deal_does_not_make_it_wrong():
    faults = parse("drain:7x7.28@event=260; drain:6x10.18@event=134; sigterm:7@event=190")
    assert isinstance(search.attempt(random_scenario(26740, methods=False).with_faults(faults)), Ended)


def test_the_same_seed_gives_the_same_run():
    first, second = (search.attempt(random_scenario(17)) for _ in range(2))
    assert isinstance(first, Ended)
    assert (first.rounds, first.recorded, first.now) == (second.rounds, second.recorded, second.now)


def test_the_faults_that_are_drawn_happen():
    fired = {f.kind for seed in range(80) for f in search.attempt(random_scenario(seed)).fired}
    assert fired >= {
        "kill",
        "vanish",
        "stop",
        "hang",
        "zombie",
        "slow",
        "drain",
        "sigterm",
        "nan",
        "cut",
        "driver",
    }


def test_a_failing_seed_is_shortened_to_what_it_takes(monkeypatch):
    def breaks(scenario):
        kinds = [fault.kind for fault in scenario.faults]
        return "broken" if kinds.count("kill") >= 1 and "drain" in kinds else None

    monkeypatch.setattr(search, "attempt", breaks)
    seed = next(s for s in range(1000) if breaks(random_scenario(s)) and len(random_scenario(s).faults) > 4)
    failure = search.check(seed)
    assert sorted(fault.kind for fault in failure.faults) == ["drain", "kill"]
    assert parse(written(failure.faults)) == failure.faults
    assert f"--first {seed}" in str(failure)
