"""Random clusters, loops and faults with the methods in which a member is elsewhere than what is committed: probes, and
averagings that travel. The bugs put in on purpose are found.
"""

from dataclasses import replace
from random import Random

import pytest

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.schedules import (
    AdaComm,
    AtEpoch,
    Delayed,
    EveryStep,
    FixedPeriod,
    LupaLoss,
    Stability,
    Switch,
)
from raysgd_local.errors import InputError
from raysgd_local.simulation.search import model, probing, seed_search
from raysgd_local.simulation.search.random_scenario import random_scenario
from raysgd_local.simulation.search.trial import TrialResult


def delayed(random):
    every = random.choice((FixedPeriod(2), FixedPeriod(5), AdaComm(6, interval_s=1.0), LupaLoss(2)))
    late = Delayed(every, random.choice((1, 2, 4)))
    return random.choice((late, late, Switch(EveryStep(), late, AtEpoch(1))))


def tried(random):
    tries = Stability(random.choice((1, 2)), held_out=2, epsilon=random.choice((1e-6, 0.02, 0.9)))
    return Switch(EveryStep(), FixedPeriod(random.randint(1, 3)), tries)


def outcome(seed, draw):
    """What comes of a seed's scenario with a schedule of this kind, and the rest of its method where that goes."""
    scenario, schedule = random_scenario(seed), draw(Random(seed))
    try:
        method = replace(scenario.method, schedule=schedule)
    except InputError:
        method = Algorithm(schedule)
    program = replace(scenario.settings.program, schedule=schedule, averaging=method.averaging)
    settings = replace(scenario.settings, program=program)
    return seed_search.attempt(replace(scenario, method=method, settings=settings))


@pytest.mark.parametrize("draw", [delayed, tried])
def test_no_invariant_is_violated(draw):
    found = [outcome(seed, draw) for seed in range(50)]
    assert [words for words in found if isinstance(words, str)] == []


def test_who_launches_right_after_a_new_deal_is_not_given_its_pending_samples_again():
    scenario = random_scenario(52883).with_faults(())
    program = replace(
        scenario.settings.program, across_epochs=False
    )  # the seed was found when rounds ended with epochs
    end = seed_search.attempt(replace(scenario, settings=replace(scenario.settings, program=program)))
    assert isinstance(end, TrialResult), end


def test_probes_pass_and_are_interrupted():
    ends = [end for seed in range(40) if isinstance(end := outcome(seed, tried), TrialResult)]
    told = [event.fields["found"] for end in ends for _, event in end.recorded if event.event == "probed"]
    for words in ("as good", "tells nothing"):  # with one curvature for all, local steps are as good
        assert any(words in found for found in told), words
    assert any(event.event == "period_changed" for end in ends for _, event in end.recorded)


def test_a_trial_that_is_not_undone_is_found(monkeypatch):
    monkeypatch.setattr(probing.NumberProbe, "undo", lambda self: None)
    found = (outcome(seed, tried) for seed in range(50))
    assert any(isinstance(words, str) and "what was tried is undone" in words for words in found)


def test_a_travelling_averaging_that_is_forgotten_when_its_view_breaks_is_found(monkeypatch):
    monkeypatch.setattr(model.NumberReplica, "land", lambda self: setattr(self, "flown", None))
    found = (outcome(seed, delayed) for seed in range(50))
    assert any(isinstance(words, str) and "the ledger knows what is in the model" in words for words in found)
