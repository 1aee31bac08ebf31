"""Virtual time agrees with theory: Wang & Joshi, MLSys 2019, section 3, and a ring's cost."""

import time

import pytest

from raysgd_local.algorithms.schedules import AdaComm, EveryStep, FixedPeriod
from raysgd_local.control.program import Program
from raysgd_local.simulation.cluster_model import ClusterModel
from raysgd_local.simulation.step_times import Constant, Exponential, ShiftedExponential
from raysgd_local.simulation.timing import TimingPlan, simulate_timing


def step_s(schedule, cluster, steps, workers=8, state_bytes=0):
    """Seconds an optimizer step takes on average, without the first round; no boundary comes between."""
    program = Program(schedule, segment_s=1e12)
    rows = simulate_timing(TimingPlan(program, workers, cluster, state_bytes=state_bytes, steps=steps, seed=1))
    assert sum(row.steps for row in rows) == steps * workers
    full = [row for row in rows if row.steps]  # the last round closes the epoch
    return (full[-1].elapsed_s - full[0].elapsed_s) / (steps - full[0].tau)


def ring(seconds, workers=8):
    """Links on which a reduction takes as long, whatever its size."""
    return {"latency_ms": 1000 * seconds / 2 / (workers - 1)}


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("tau", [2, 4, 16])
def test_constant_steps_gain_as_the_paper_says(alpha, tau):
    cluster = ClusterModel(steps=Constant(1.0), **ring(alpha))
    gain = step_s(FixedPeriod(1), cluster, 64) / step_s(FixedPeriod(tau), cluster, 64)
    assert gain == pytest.approx((1 + alpha) / (1 + alpha / tau), rel=1e-9)


@pytest.mark.parametrize(("tau", "expected"), [(1, 2.718), (16, 1.383)])
def test_local_steps_average_stragglers_out(tau, expected):
    """Exponential steps of mean 1, 8 workers: the maximum of 8, and of 8 means of 16."""
    cluster = ClusterModel(steps=Exponential(1.0), latency_ms=0.0)
    assert step_s(FixedPeriod(tau), cluster, tau * 8000) == pytest.approx(expected, rel=0.01)


def test_every_step_costs_a_reduction_each():
    cluster = ClusterModel(steps=Constant(0.01), latency_ms=1, bandwidth_mbps=8)
    slots_bytes = 4 * 15 * 4
    expected = 0.01 + 2 * 3 * ((1000 + slots_bytes) / 4 / 1e6 + 0.001)
    assert step_s(EveryStep(), cluster, 50, workers=4, state_bytes=1000) == pytest.approx(expected)


def test_a_slow_worker_sets_the_pace_and_the_others_wait():
    cluster = ClusterModel(steps=Constant(0.1), speeds=(1.0, 0.5), latency_ms=0)
    rows = simulate_timing(TimingPlan(Program(FixedPeriod(4)), 2, cluster, steps=20))
    assert rows[0].compute_s == pytest.approx(0.6)
    assert rows[0].wait_s == pytest.approx(0.2)


def test_adacomm_shortens_its_period_as_the_loss_falls():
    cluster = ClusterModel(steps=Constant(0.1))
    program = Program(AdaComm(tau0=16, interval_s=20.0))
    rows = simulate_timing(TimingPlan(program, 4, cluster, steps=3000, half_loss_steps=300))
    taus = [row.tau for row in rows]
    assert taus[0] == 16
    assert taus[-2] == 1
    assert taus[:-1] == sorted(taus[:-1], reverse=True)


def test_a_thousand_workers_take_a_thousand_rounds_a_minute():
    began = time.process_time()
    cluster = ClusterModel(steps=ShiftedExponential(0.05, 0.02), bandwidth_mbps=10_000)
    rows = simulate_timing(TimingPlan(Program(FixedPeriod(1)), 1024, cluster, steps=100))
    assert len(rows) >= 100
    assert time.process_time() - began < 6
