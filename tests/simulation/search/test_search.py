"""Random clusters, methods, loops and faults: the invariants hold after every event."""

from dataclasses import replace

import pytest

from raysgd_local.faults.language import parse, written
from raysgd_local.simulation.engine.pace import StepPaces
from raysgd_local.simulation.search import seed_search
from raysgd_local.simulation.search.random_scenario import random_scenario
from raysgd_local.simulation.search.trial import TrialResult


@pytest.mark.parametrize("first", [0, 50, *(pytest.param(first, marks=pytest.mark.long) for first in (100, 150))])
def test_no_invariant_is_violated(first):
    for seed in range(first, first + 50):
        outcome = seed_search.check(seed)
        assert isinstance(outcome, TrialResult), str(outcome)


def test_a_run_without_faults_finishes_and_loses_nobody():
    scenarios = [random_scenario(seed, faults=0) for seed in range(30)]
    outcomes = [seed_search.attempt(s) for s in scenarios if not (s.loop.differs() or s.loop.exits)]
    calm = [o for o in outcomes if isinstance(o, TrialResult) and not o.controller.workers_lost]
    assert len(calm) > 15
    assert {o.finish.status for o in calm} == {"finished"}


def replayed(seed, chaos, methods=False):
    """What came of a seed's scenario with these faults."""
    return seed_search.replay(seed, chaos, methods)


def test_who_is_given_up_since_one_step_took_longer_than_others_wait_is_not_given_up_for_nothing():
    outcome = replayed(505433, "")
    assert isinstance(outcome, TrialResult), outcome
    assert outcome.controller.workers_lost == 1


def test_nor_is_who_works_alone_for_longer_than_others_wait(monkeypatch):
    outcome = replayed(108609, "", methods=True)
    assert isinstance(outcome, TrialResult), outcome
    assert outcome.controller.workers_lost == 1
    monkeypatch.setattr(StepPaces, "longest_stretch_s", lambda self, worker: 0.0)
    assert "given up for nothing" in str(replayed(108609, "", methods=True))


def test_two_workers_that_are_taken_away_at_once_in_a_crash_loop_are_both_asked_for_again():
    outcome = replayed(
        500446,
        "kill:6@event=34; zombie:2x0.37@event=41; kill:3@event=18; kill:2@event=12; drain:2x1.52@event=45; "
        "stop:7x0.72@event=16",
    )
    assert isinstance(outcome, TrialResult), outcome


def test_a_zombie_that_holds_a_lost_beginning_does_not_make_the_new_one_wrong():
    outcome = replayed(25707, "unpublished@event=31; kill:4@event=80; zombie:0x26.53@event=92", methods=True)
    assert isinstance(outcome, TrialResult), outcome


def test_who_decides_to_leave_after_a_deal_does_not_make_it_wrong():
    outcome = replayed(26740, "drain:7x7.28@event=260; drain:6x10.18@event=134; sigterm:7@event=190")
    assert isinstance(outcome, TrialResult), outcome


def test_the_same_seed_gives_the_same_run():
    first, second = (seed_search.attempt(random_scenario(17)) for _ in range(2))
    assert isinstance(first, TrialResult)
    assert (first.rounds, first.recorded, first.now) == (second.rounds, second.recorded, second.now)


def test_the_faults_that_are_drawn_happen():
    fired = {f.kind for seed in range(80) for f in seed_search.attempt(random_scenario(seed)).fired}
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

    monkeypatch.setattr(seed_search, "attempt", breaks)
    seed = next(s for s in range(1000) if breaks(random_scenario(s)) and len(random_scenario(s).faults) > 4)
    failure = seed_search.check(seed)
    assert sorted(fault.kind for fault in failure.faults) == ["drain", "kill"]
    assert parse(written(failure.faults)) == failure.faults
    assert f"--first {seed}" in str(failure)


def test_runs_with_spares_hold_the_invariants():
    for seed in range(300, 330):
        scenario = random_scenario(seed)
        outcome = seed_search.attempt(replace(scenario, settings=replace(scenario.settings, spares=1 + seed % 2)))
        assert isinstance(outcome, TrialResult), (seed, outcome)
