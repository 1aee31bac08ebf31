"""What trials are compared by, from tables made by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from raysgd_local.config import Target
from raysgd_local.run.progress import Snapshot
from raysgd_local.tuning.objective import Objective, loss_at, time_to_target

EVALS = pd.DataFrame({"elapsed_s": [1.0, 2.0, 3.0], "accuracy": [0.5, 0.9, 0.8], "loss": [1.0, 0.4, 0.2]})
ROUNDS = pd.DataFrame(
    {"elapsed_s": [1.0, 9.5, 10.0, 12.0], "loss": [9.0, 1.0, 4.0, 0.1], "samples": [64, 200, 100, 100]}
)


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [("accuracy", 0.9, 2.0), ("accuracy", 0.95, math.inf), ("loss", 0.4, 2.0), ("top5", 0.1, math.inf)],
)
def test_time_to_target_is_that_of_the_first_evaluation_that_is_good_enough(metric, value, expected):
    assert time_to_target(EVALS, Target(metric=metric, value=value)) == expected


def test_loss_at_budget_is_the_mean_of_the_samples_in_the_last_tenth_before_it():
    assert loss_at(ROUNDS, 10.0) == pytest.approx((1.0 * 200 + 4.0 * 100) / 300)
    assert loss_at(ROUNDS, None) == 0.1


def test_before_any_round_there_is_no_loss():
    assert math.isnan(loss_at(ROUNDS.iloc[:0], 10.0))


def test_on_the_way_trials_are_compared_by_what_leads_to_the_figure():
    target = Target(metric="accuracy", value=0.9)
    assert Objective("time_to_target_s", "min", target).progress == ("accuracy", "max")
    assert Objective("loss_at_budget", "min", None, 5.0).progress == ("train_loss", "min")
    assert Objective("loss", "min").progress == ("loss", "min")


def test_tune_is_told_at_each_evaluation_and_once_a_second_of_training_time():
    from raysgd_local.tuning.trial import Reporter

    told = []
    reporter = Reporter(Objective("train_loss", "min"), told.append)
    for elapsed_s, metrics in [
        (0.0, {}),
        (0.4, {}),
        (0.5, {"loss": 2.0}),
        (0.6, {"loss": 2.0}),
        (1.6, {"loss": 2.0}),
    ]:
        reporter(Snapshot(round=1, elapsed_s=elapsed_s, loss=1.0, metrics=metrics))
    assert [(found["elapsed_s"], found.get("loss")) for found in told] == [(0.0, None), (0.5, 2.0), (1.6, 2.0)]


def test_nothing_is_told_before_there_is_something_to_compare():
    from raysgd_local.tuning.trial import Reporter

    told = []
    reporter = Reporter(Objective("accuracy", "max"), told.append)
    reporter(Snapshot())
    reporter(Snapshot(round=3, elapsed_s=1.0, loss=1.0))
    assert told == []
    reporter(Snapshot(round=4, elapsed_s=1.1, loss=1.0, metrics={"accuracy": 0.5}))
    assert [found["accuracy"] for found in told] == [0.5]


def test_a_trial_whose_training_time_is_over_is_not_stopped_before_its_figures_are_written():
    from raysgd_local.tuning.trial import Reporter

    told = []
    reporter = Reporter(Objective("train_loss", "min", None, 2.0), told.append)
    for elapsed_s in (1.9, 2.0, 3.5):
        reporter(Snapshot(round=1, elapsed_s=elapsed_s, loss=1.0))
    assert [found["elapsed_s"] for found in told] == [1.9]
