"""What a cluster's file may say, and what it is told when it says something else."""

from __future__ import annotations

import pytest

from raysgd_local.config import load_cluster
from raysgd_local.errors import InputError
from raysgd_local.simulation.cluster.cluster_model import ClusterModel, Failures, Nodes
from raysgd_local.simulation.cluster.step_times import Measured, ShiftedExponential

WHOLE = """
steps: {kind: shifted-exponential, shift_s: 0.02, tail_s: 1e-2}
speeds: [1, 0.5]
latency_ms: 2
bandwidth_mbps: 100
nodes: {workers: 4, bandwidth_mbps: 10000, reduction: two-level}
startup_s: 20
arrivals_s: [600]
failures: {deaths_per_hour: 0.01, preemptions_per_hour: 0.1, notice_s: 120, replacement_s: 60}
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "cluster.yaml"
        path.write_text(text)
        return path

    return write


def test_a_file_describes_a_whole_cluster(written):
    assert load_cluster(written(WHOLE)) == ClusterModel(
        steps=ShiftedExponential(0.02, 0.01),
        speeds=(1.0, 0.5),
        latency_ms=2.0,
        bandwidth_mbps=100.0,
        nodes=Nodes(4, bandwidth_mbps=10000.0, reduction="two-level"),
        startup_s=20.0,
        arrivals_s=(600.0,),
        failures=Failures(0.01, 0.1, 120.0, 60.0),
    )


def test_without_a_file_it_is_the_default_cluster():
    assert load_cluster() == ClusterModel()


def test_what_is_given_beside_the_file_wins(written):
    found = load_cluster(written(WHOLE), {"bandwidth_mbps": 50, "latency_ms": None})
    assert (found.bandwidth_mbps, found.latency_ms) == (50.0, 2.0)


@pytest.mark.parametrize(
    ("text", "field", "told"),
    [
        ("step: {kind: pareto}", "cluster.step", "did you mean 'steps'?"),
        ("steps: {kind: paretto}", "cluster.steps.kind", "did you mean 'pareto'?"),
        ("steps: {kind: pareto, shape: 1}", "cluster.steps.shape", "a number above 1"),
        ("steps: {kind: constant, mean: 1}", "cluster.steps.mean", "did you mean 'mean_s'?"),
        ("steps: {kind: measured}", "cluster.steps.run", "it has no default"),
        ("steps: {kind: measured, run: nowhere}", "cluster.steps.run", "a run directory"),
        ("nodes: {worker: 3}", "cluster.nodes.worker", "did you mean 'workers'?"),
        ("failures: {deaths_per_hour: often}", "cluster.failures.deaths_per_hour", "a number"),
        ("bandwidth_mbps: 0", "cluster.bandwidth_mbps", "a number above 0"),
        ("latency_ms: [1", "cluster", "valid YAML"),
        ("- 1", "cluster", "a YAML mapping"),
    ],
)
def test_what_can_not_be_used_is_refused_with_its_place(written, text, field, told):
    with pytest.raises(InputError) as refused:
        load_cluster(written(text))
    assert refused.value.field == field
    assert told in str(refused.value)


def test_a_missing_file_is_told_with_the_one_beside_it(written):
    with pytest.raises(InputError, match=r"did you mean 'cluster\.yaml'"):
        load_cluster(written("").with_name("clustr.yaml"))


def test_a_runs_directory_is_the_cluster_that_the_run_met_but_for_what_is_given_beside(run_writer, tmp_path):
    run = run_writer("met")
    found = load_cluster(run, {"bandwidth_mbps": 50, "latency_ms": None})
    assert found.steps == Measured(str(run))
    assert (found.bandwidth_mbps, found.latency_ms) == (
        50.0,
        pytest.approx((8 / (2 * 3) + 8 / (2 * 2)) / 2, rel=0.02),
    )
    with pytest.raises(InputError, match=r"run: .* is not allowed.*it has no config\.yaml"):
        load_cluster(tmp_path)
