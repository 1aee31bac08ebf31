"""What a run's table tells of its cluster is what the cluster was told to be."""

from __future__ import annotations

import csv
import dataclasses

import pytest

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.replicated.program import Program
from raysgd_local.errors import InputError
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.cluster.recorded import cluster_of
from raysgd_local.simulation.cluster.step_times import Exponential
from raysgd_local.simulation.engine.loop import LoopPlan
from raysgd_local.simulation.timing.lockstep import simulate_timing
from raysgd_local.simulation.timing.plan import TimingPlan


def run_of(directory, cluster, tau):
    loop = LoopPlan(epochs=1, samples=0, batch_size=32, evaluates=False, own_steps=4000)
    rows = simulate_timing(TimingPlan(Program(FixedPeriod(tau)), 4, cluster, loop, seed=2)).rows
    directory.mkdir()
    (directory / "config.yaml").write_text("{}")
    with (directory / "rounds.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dataclasses.asdict(rows[0])))
        writer.writeheader()
        writer.writerows(map(dataclasses.asdict, rows))
    return rows


@pytest.mark.parametrize("tau", [1, 8])
def test_a_cluster_is_found_again_in_a_runs_table(tmp_path, tau):
    told = ClusterModel(Exponential(0.02), latency_ms=1, bandwidth_mbps=1000, round_ms=3, warmup_s=0.5)
    run_of(tmp_path / "run", told, tau)
    found = cluster_of(str(tmp_path / "run"))
    assert found.steps.mean_s == pytest.approx(0.02, rel=0.05)
    assert found.round_ms == pytest.approx(3, rel=0.1)  # boundaries are in it
    assert found.warmup_s == pytest.approx(0.5, abs=0.2)
    assert found.reduction_s(0, 4) == pytest.approx(told.reduction_s(4_000_000, 4), rel=0.1)


@pytest.mark.long
def test_a_run_predicts_others_on_the_same_cluster(tmp_path):
    told = ClusterModel(Exponential(0.02), latency_ms=1, bandwidth_mbps=100, round_ms=3, warmup_s=0.5)
    run_of(tmp_path / "measured", told, 1)
    real = run_of(tmp_path / "real", told, 16)[-1].elapsed_s
    found = cluster_of(str(tmp_path / "measured"))
    for cluster in (found, dataclasses.replace(found, latency_ms=1, bandwidth_mbps=100)):
        predicted = run_of(tmp_path / f"on-{cluster.bandwidth_mbps}", cluster, 16)[-1].elapsed_s
        assert predicted == pytest.approx(real, rel=0.05)


def test_where_there_is_no_run_nothing_is_told(tmp_path):
    with pytest.raises(InputError):
        cluster_of(str(tmp_path / "absent"))
