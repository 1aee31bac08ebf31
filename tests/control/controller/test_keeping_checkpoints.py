"""The checkpoints that `keep` and `score` leave: the best by the metric, and the newest."""

from __future__ import annotations

import math

import pytest

from raysgd_local.control.controller.checkpoints import CheckpointRecord, Saves, ranked
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.replicated.state import Replicated

NAN, INF = math.nan, math.inf


def checkpoint(number: int, evaluations: int, **metrics: float) -> CheckpointRecord:
    state = Replicated(
        schedule=None, round=number, evaluations=evaluations, metrics=tuple(sorted(metrics.items()))
    )
    return CheckpointRecord(f"{number:06d}", 1, 1, ("w0",), False, state, Ledger(), None, None)


def kept(records: list[CheckpointRecord], policy: CheckpointPolicy) -> list[int]:
    """Publish one after the other; return the numbers of those that are left."""
    saves = Saves()
    for record in records:
        saves, _ = saves.begin(record, final=False).publish(record.name).pruned(policy)
    return [int(record.name) for record in saves.published]


def evaluated(values: list[float | None], metric: str = "m") -> list[CheckpointRecord]:
    """A checkpoint after each value's evaluation; None: evaluated without this metric."""
    found = (({} if value is None else {metric: value}) for value in values)
    return [checkpoint(number, number, **metrics) for number, metrics in enumerate(found, 1)]


@pytest.mark.parametrize(
    ("order", "values", "keep", "left"),
    [
        ("max", [NAN, 0.5, 0.9, 0.6, 0.7], 2, [3, 5]),
        ("min", [None, 0.5, 0.1, 0.4, 0.3], 2, [3, 5]),
        ("max", [0.9, NAN, 0.1, 0.2], 1, [1, 4]),  # the best, and the newest for a resume
        ("min", [0.9, None, 0.1, 0.2], 1, [3, 4]),
        ("max", [0.1, 0.2, 0.3], 1, [3]),  # the best is the newest
        ("max", [0.9, INF, -INF, 0.8, 0.1], 2, [1, 4, 5]),
        ("min", [0.1, -INF, NAN, 0.2, 0.3, 0.4], 2, [1, 4, 6]),
        ("max", [0.5, 0.5, 0.5], 1, [3]),  # of equals the newest
        ("max", [None, NAN, None], 2, [2, 3]),  # no score at all: the newest
        ("max", [0.0, NAN, None, NAN], 2, [1, 4]),  # a score of 0 is one
        ("max", [-3.0, None, -2.0, None], 2, [1, 3, 4]),  # a missing one is no zero
    ],
)
def test_the_best_by_the_metric_are_kept_and_the_newest_beside_them(order, values, keep, left):
    assert kept(evaluated(values), CheckpointPolicy(keep=keep, score="m", score_order=order)) == left


def test_without_a_score_the_newest_are_kept():
    assert kept(evaluated([0.9, 0.1, 0.2, 0.3]), CheckpointPolicy(keep=2)) == [3, 4]
    assert kept(evaluated([0.9, 0.1]), CheckpointPolicy(keep=None)) == [1, 2]


def test_an_evaluation_scores_the_first_checkpoint_after_it_and_no_later_model():
    policy = CheckpointPolicy(keep=2, score="m")
    records = [
        checkpoint(1, 1, m=0.9),
        checkpoint(2, 1, m=0.9),  # the model has changed since that evaluation
        checkpoint(3, 2, m=0.5),
        checkpoint(4, 2, m=0.5),
    ]
    assert [int(record.name) for record in ranked(records, policy)] == [2, 4, 3, 1]
    assert kept(records, policy) == [1, 3, 4]


@pytest.mark.parametrize("metric", ["acuracy", "accuracy"])
def test_a_score_that_no_evaluation_reports_is_to_be_told_once(metric):
    policy = CheckpointPolicy(keep=2, score=metric)
    before, record = checkpoint(1, 0), checkpoint(2, 1, accuracy=0.5)
    saves = Saves().begin(record, final=False).publish(record.name)
    assert not saves.lacks_score(before, policy)  # no evaluation yet
    assert saves.lacks_score(record, policy) == (metric == "acuracy")
