"""Forecasts: closed forms where there are some, and parts of runs that stand for the whole."""

from __future__ import annotations

import dataclasses

import pytest

from raysgd_local import config
from raysgd_local.algorithms.schedules import AdaComm, FixedPeriod
from raysgd_local.control.replicated.program import Program
from raysgd_local.planning import forecast
from raysgd_local.planning.forecast import candidates, communication_s, forecasts, on_this_machine, timing_plan
from raysgd_local.planning.workload import Workload
from raysgd_local.simulation.cluster.cluster_model import ClusterModel, Failures
from raysgd_local.simulation.cluster.loss_curve import HalvingLoss
from raysgd_local.simulation.cluster.step_times import Constant, SampledSteps
from raysgd_local.simulation.engine.loop import LoopPlan
from raysgd_local.simulation.timing.plan import TimingPlan

WORKLOAD = Workload(samples=1600, state_bytes=1_000_000, step_s=(0.01, 0.03), round_s=0.002, warmup_s=0.1)
CLUSTER = ClusterModel(steps=Constant(0.01), latency_ms=0, bandwidth_mbps=800, round_ms=1)


def plan(schedule=None, steps=100, **changes):
    loop = LoopPlan(1, 0, 32, evaluates=False, own_steps=steps)
    return TimingPlan(Program(schedule or FixedPeriod(2), segment_s=1e9), 4, CLUSTER, loop, **changes)


def by_name(plan):
    return {one.name: one for one in forecasts(plan)}


def test_what_is_not_said_of_the_cluster_is_measured():
    found = on_this_machine(ClusterModel(bandwidth_mbps=100, failures=Failures(1.0)), WORKLOAD)
    assert found.steps == SampledSteps((0.01, 0.03))
    assert (found.round_ms, found.warmup_s, found.bandwidth_mbps) == (2.0, 0.1, 100)
    assert found.failures == Failures()


def test_what_is_said_of_the_cluster_holds():
    said = ClusterModel(steps=Constant(0.5), round_ms=7, warmup_s=3)
    assert on_this_machine(said, WORKLOAD) == said


def test_the_configured_run_is_what_is_timed():
    settings = ["task.epochs=3", "task.batch_size=8", "task.accumulate=2", "workers.max=5", "workers.min=1"]
    found = timing_plan(config.load(settings=settings), CLUSTER, WORKLOAD)
    assert (found.workers, found.loop.samples, found.loop.epochs, found.loop.batch_size) == (5, 1600, 3, 16)
    assert isinstance(found.program.schedule, AdaComm)
    assert found.state_bytes == 1_000_000
    assert found.loss.loss(4800) == pytest.approx(1 / 16)


def test_shares_of_the_time_follow_the_closed_form():
    costs_s = communication_s(plan())
    assert costs_s == pytest.approx(0.001 + 2 * 3 * (1_000_000 * 4 + 240) / 4 / 1e8, rel=1e-3)
    found = by_name(plan(steps=4992))
    for tau in (4, 16, 64):
        share = found[f"fixed, tau {tau}"].communication_share
        assert share == pytest.approx(costs_s / (costs_s + 0.01 * tau), rel=0.05)
    assert all(one.wait_share == pytest.approx(0, abs=1e-9) for one in found.values())


def test_candidates_are_the_first_periods_within_each_share():
    costs_s = communication_s(plan())
    for share, tau in candidates(plan()).items():
        assert costs_s / (costs_s + 0.01 * tau) <= share
        assert tau == 1 or costs_s / (costs_s + 0.01 * (tau - 1)) > share


def test_where_communication_is_free_one_step_is_enough():
    free = dataclasses.replace(CLUSTER, round_ms=0, bandwidth_mbps=None)
    assert set(candidates(dataclasses.replace(plan(), cluster=free)).values()) == {1}


def test_a_part_of_a_long_run_stands_for_the_whole(monkeypatch):
    whole = by_name(plan(steps=4000))
    monkeypatch.setattr(forecast, "_PART_STEPS", 500)
    part = by_name(plan(steps=4000))
    for name in ("every step", "fixed, tau 16"):
        assert part[name].elapsed_s == pytest.approx(whole[name].elapsed_s, rel=0.01)
        assert part[name].rounds == pytest.approx(whole[name].rounds, rel=0.02)


def test_a_part_keeps_the_epochs_of_the_whole(monkeypatch):
    loop = LoopPlan(40, 4 * 32 * 10, 32, evaluates=False)  # 10 steps an epoch: longer periods are cut short
    long = dataclasses.replace(plan(FixedPeriod(64)), loop=loop)
    whole = by_name(long)
    monkeypatch.setattr(forecast, "_PART_STEPS", 50)
    part = by_name(long)
    assert part["fixed, tau 64"].rounds == whole["fixed, tau 64"].rounds == 40


def test_schedules_that_change_are_left_out_of_runs_too_long_for_them(monkeypatch):
    assert any(name.startswith("adacomm") for name in by_name(plan()))
    monkeypatch.setattr(forecast, "_WHOLE_STEPS", 99)
    assert not any(name.startswith("adacomm") for name in by_name(plan()))


def test_the_configured_schedule_has_a_line_where_it_is_no_usual_one():
    assert "as configured" not in by_name(plan(FixedPeriod(16)))
    assert by_name(plan(FixedPeriod(5)))["as configured"].rounds == 21  # and one that closes the epoch
    own = AdaComm(tau0=8, interval_s=3)
    assert "adacomm, tau0 8, every 3 s" in by_name(plan(own, loss=HalvingLoss(1000)))
