"""Loss curves: assumed ones, and those of an earlier run."""

from __future__ import annotations

import math

import pytest

from raysgd_local.errors import InputError
from raysgd_local.simulation.cluster.loss_curve import HalvingLoss, RecordedLoss


def write(directory, *rows):
    directory.mkdir()
    (directory / "config.yaml").write_text("{}")
    names = "round,view,incarnation,workers,tau,scope,steps,samples,epoch,elapsed_s,compute_s,sync_s,wait_s"
    lines = [f"{n},1,1,2,1,global,2,{samples},0,1,1,0,0,0,{loss},0.1" for n, (samples, loss) in enumerate(rows, 1)]
    (directory / "rounds.csv").write_text("".join(f"{line}\n" for line in [f"{names},wire_bytes,loss,lr", *lines]))
    return str(directory)


def test_a_recorded_loss_goes_through_the_middle_of_each_round(tmp_path):
    curve = RecordedLoss(write(tmp_path / "run", (100, 2.0), (100, 1.0), (200, 0.5)))
    assert [curve.loss(samples) for samples in (50, 150, 300)] == [2.0, 1.0, 0.5]
    assert curve.loss(100) == pytest.approx(1.5)


def test_before_the_first_round_and_after_the_last_a_recorded_loss_stays(tmp_path):
    curve = RecordedLoss(write(tmp_path / "run", (100, 2.0), (100, 1.0)))
    assert (curve.loss(0), curve.loss(1e9)) == (2.0, 1.0)


def test_rounds_without_samples_say_nothing_about_the_loss(tmp_path):
    curve = RecordedLoss(write(tmp_path / "run", (100, 2.0), (0, math.nan), (100, 1.0)))
    assert curve.loss(100) == pytest.approx(1.5)
    with pytest.raises(InputError, match="no round in it has a loss"):
        RecordedLoss(write(tmp_path / "empty", (0, math.nan)))


def test_a_loss_that_never_halves_is_refused():
    with pytest.raises(InputError):
        HalvingLoss(0)
