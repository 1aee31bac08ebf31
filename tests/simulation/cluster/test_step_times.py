"""Step times: what the distributions promise, and what an earlier run's table gives back."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.errors import InputError
from raysgd_local.simulation.cluster.step_times import (
    Constant,
    Exponential,
    Measured,
    Pareto,
    SampledSteps,
    ShiftedExponential,
)

PLAIN = RoundRow(1, 1, 1, 2, 1, "global", 2, 64, 0, 1.0, 1.0, 0.1, 0.0, 0, 1.0, 0.1)


def recorded(directory, *rows):
    """A run directory with a first round that tells nothing, and others of (workers, steps, compute_s, wait_s)."""
    directory.mkdir()
    (directory / "config.yaml").write_text("{}")
    with (directory / "rounds.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(RoundRow)])
        writer.writeheader()
        for number, (workers, steps, compute_s, wait_s) in enumerate([(2, 1, 9.0, 1.0), *rows], start=1):
            row = dataclasses.replace(PLAIN, round=number, workers=workers, tau=steps, steps=workers * steps)
            writer.writerow(dataclasses.asdict(row) | {"compute_s": compute_s, "wait_s": wait_s})
    return Measured(str(directory))


def draw(steps, *shape, seed=0):
    return steps.draw(np.random.default_rng(seed), shape)


@pytest.mark.parametrize(
    "steps",
    [Constant(0.2), Exponential(0.2), ShiftedExponential(0.1, 0.1), Pareto(0.1, 3.0), SampledSteps((0.1, 0.5))],
)
def test_step_times_have_the_mean_they_say(steps):
    assert draw(steps, 100_000).mean() == pytest.approx(steps.mean_s, rel=0.01)


def test_two_workers_times_are_known_from_their_mean_and_the_wait(tmp_path):
    steps = recorded(tmp_path / "run", (2, 1, 0.3, 0.1), (2, 1, 0.5, 0.0))
    assert set(np.round(draw(steps, 2, 500).ravel(), 9)) == {0.4, 0.2, 0.5}
    assert steps.mean_s == pytest.approx(0.4)


def test_of_more_workers_the_slowest_is_known_and_the_others_lie_below(tmp_path):
    steps = recorded(tmp_path / "run", (4, 1, 0.2, 0.13))
    values, counts = np.unique(np.round(draw(steps, 40_000), 9), return_counts=True)
    assert values.max() == pytest.approx(0.33)
    assert values.mean() == pytest.approx(0.2)
    assert counts / 40_000 == pytest.approx(0.25, abs=0.01)


def test_exponential_times_come_back_from_what_rows_tell_of_them(tmp_path):
    """Their mean, and how long the slowest of as many workers takes."""
    drawn = np.random.default_rng(0).exponential(1.0, (5000, 4))
    rows = [(4, 1, line.mean(), line.max() - line.mean()) for line in drawn]
    again = draw(recorded(tmp_path / "run", *rows), 4, 20_000)
    assert again.mean() == pytest.approx(1.0, rel=0.03)
    assert again.max(axis=0).mean() == pytest.approx(1 + 1 / 2 + 1 / 3 + 1 / 4, rel=0.05)


def test_steps_in_a_row_keep_the_mean_of_their_round(tmp_path):
    steps = recorded(tmp_path / "run", (2, 4, 0.4, 0.0), (2, 4, 4.0, 0.0))
    drawn = draw(steps, 300, 400)
    changes = np.flatnonzero(np.diff(drawn[0])) + 1
    assert len(changes) > 10
    assert len(set(changes % 4)) == 1
    assert len({tuple(np.flatnonzero(np.diff(line))[:3] % 4) for line in drawn}) > 1  # they begin anywhere


@pytest.mark.parametrize("shape", [(), (3,), (50, 1), (50, 7), (2, 3, 5)])
def test_rounds_of_any_length_give_any_number_of_steps_with_the_same_mean(tmp_path, shape):
    steps = recorded(tmp_path / "run", (2, 16, 1.6, 0.4), (2, 4, 0.8, 0.1), (2, 1, 0.3, 0.0))
    random = np.random.default_rng(1)
    drawn = [steps.draw(random, shape) for _ in range(4000 if len(shape) < 2 else 400)]
    assert {d.shape for d in drawn} == {shape}
    assert np.mean(drawn) == pytest.approx(steps.mean_s, rel=0.03)
    assert steps.mean_s == pytest.approx((1.6 + 0.8 + 0.3) / 21)


def test_rounds_without_steps_tell_nothing(tmp_path):
    assert recorded(tmp_path / "run", (2, 0, 0.0, 0.0), (2, 1, 0.3, 0.0)).mean_s == pytest.approx(0.3)


def test_the_first_round_counts_only_where_it_is_the_only_one(tmp_path):
    assert recorded(tmp_path / "short").mean_s == pytest.approx(9.0)


def test_a_run_without_a_step_is_refused(tmp_path):
    recorded(tmp_path / "run")
    header = (tmp_path / "run" / "rounds.csv").read_text().splitlines()[0]
    (tmp_path / "run" / "rounds.csv").write_text(header + "\n")
    with pytest.raises(InputError, match="no round in it has a step"):
        Measured(str(tmp_path / "run"))


def test_a_run_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError) as refused:
        Measured(str(tmp_path / "absent"))
    assert refused.value.field == "run"


@pytest.mark.parametrize("wrong", [(), (0.1, 0.0), (0.1, float("nan"))])
def test_samples_are_times_above_0(wrong):
    with pytest.raises(InputError):
        SampledSteps(wrong)
