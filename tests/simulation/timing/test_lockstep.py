"""Virtual time agrees with theory: Wang & Joshi, MLSys 2019, section 3, and a ring's cost."""

from __future__ import annotations

import time

import pytest

from raysgd_local.algorithms.learning_rate import LearningRate
from raysgd_local.algorithms.schedules import (
    AdaComm,
    AtFirstDecay,
    Delayed,
    EveryStep,
    FixedPeriod,
    Stability,
    Switch,
)
from raysgd_local.control.control_slots import SLOT
from raysgd_local.control.replicated.program import Program
from raysgd_local.errors import InputError
from raysgd_local.simulation.cluster.cluster_model import ClusterModel, Failures
from raysgd_local.simulation.cluster.loss_curve import HalvingLoss
from raysgd_local.simulation.cluster.step_times import Constant, Exponential, ShiftedExponential
from raysgd_local.simulation.engine.loop import LoopPlan
from raysgd_local.simulation.engine.world import FleetObserver
from raysgd_local.simulation.timing.lockstep import simulate_timing
from raysgd_local.simulation.timing.plan import TimingPlan, loop_over

AT_ONCE = ClusterModel(steps=Constant(0.1), latency_ms=0)


def own_steps(count):
    """A loop of this many steps, in one epoch that closes with a round of its own."""
    return LoopPlan(epochs=1, samples=0, batch_size=32, evaluates=False, own_steps=count)


def timed(schedule, workers=4, cluster=AT_ONCE, program=None, **plan):
    """The rows of a run without boundaries in between."""
    program = Program(schedule, **{"segment_s": 1e12, **(program or {})})
    return simulate_timing(TimingPlan(program, workers, cluster, seed=1, **plan)).rows


def step_s(schedule, cluster, steps, workers=8, state_bytes=0):
    """Seconds an optimizer step takes on average, without the first round."""
    rows = timed(schedule, workers, cluster, state_bytes=state_bytes, loop=own_steps(steps))
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
    slots_bytes = 4 * SLOT * 4
    expected = 0.01 + 2 * 3 * ((1000 + slots_bytes) / 4 / 1e6 + 0.001)
    assert step_s(EveryStep(), cluster, 50, workers=4, state_bytes=1000) == pytest.approx(expected)


def test_a_round_costs_what_the_cluster_says_beside_its_link():
    cluster = ClusterModel(steps=Constant(0.01), latency_ms=0, round_ms=8)
    assert step_s(FixedPeriod(4), cluster, 64) == pytest.approx(0.01 + 0.008 / 4)


@pytest.mark.parametrize(("delay", "seconds"), [(0, 0.8 + 0.3), (1, 0.8 + 0.2), (3, 0.8), (7, 0.8)])
def test_an_averaging_is_hidden_by_the_steps_that_go_on_meanwhile(delay, seconds):
    """8 steps of 0.1 s, and a reduction of 0.3 s."""
    size_bytes = 300_000 - 4 * SLOT * 4
    cluster = ClusterModel(steps=Constant(0.1), latency_ms=0, bandwidth_mbps=8 * 2 * 3 / 4)
    rows = timed(Delayed(FixedPeriod(8), delay), 4, cluster, state_bytes=size_bytes, loop=own_steps(800))
    assert sum(row.steps for row in rows) == 4 * 800
    middle = [row.elapsed_s for row in rows[10:60]]
    assert (middle[-1] - middle[0]) / 49 == pytest.approx(seconds)
    assert rows[20].compute_s == pytest.approx(0.8)
    assert rows[20].sync_s == pytest.approx(seconds - 0.8, abs=1e-9)


def test_the_first_steps_take_longer_by_the_warm_up():
    cluster = ClusterModel(steps=Constant(0.01), latency_ms=0, warmup_s=0.5)
    rows = timed(FixedPeriod(4), cluster=cluster, loop=own_steps(8))
    assert [row.elapsed_s for row in rows[:2]] == pytest.approx([0.54, 0.58])
    assert rows[0].compute_s == pytest.approx(0.04)


def test_a_slow_worker_sets_the_pace_and_the_others_wait():
    cluster = ClusterModel(steps=Constant(0.1), speeds=(1.0, 0.5), latency_ms=0)
    rows = timed(FixedPeriod(4), 2, cluster, loop=own_steps(20))
    assert rows[0].compute_s == pytest.approx(0.6)
    assert rows[0].wait_s == pytest.approx(0.2)
    assert rows[0].elapsed_s == pytest.approx(0.8)


def test_what_was_sent_is_a_rings_share_of_the_vector():
    rows = timed(FixedPeriod(4), 4, state_bytes=1000, loop=own_steps(8))
    assert [row.wire_bytes for row in rows] == [4 * 2 * (1000 + 4 * SLOT * 4) * 3 // 4] * 3


def test_adacomm_shortens_its_period_as_the_loss_falls():
    loss = HalvingLoss(300 * 4 * 32)
    rows = timed(AdaComm(tau0=16, interval_s=20.0), loop=own_steps(3000), loss=loss)
    taus = [row.tau for row in rows]
    assert taus[0] == 16
    assert taus[-2] == 1
    assert taus[:-1] == sorted(taus[:-1], reverse=True)


def test_the_learning_rate_goes_by_epochs_and_schedules_see_its_decay():
    rate = LearningRate("multistep", milestones=(1.0,), gamma=0.1)
    schedule = Switch(FixedPeriod(1), FixedPeriod(4), AtFirstDecay())
    rows = timed(schedule, 2, loop=loop_over(160, 2, 10, 2), learning_rate=rate, lr=0.5)
    assert [(row.epoch, row.tau) for row in rows if row.epoch == 0] == [(0, 1)] * 8
    assert [row.lr for row in rows] == pytest.approx([0.5] * 8 + [0.05] * (len(rows) - 8))
    assert rows[-1].tau == 4


@pytest.mark.parametrize(("samples", "workers", "batch_size"), [(96, 4, 8), (97, 3, 8), (35, 2, 4), (1437, 4, 16)])
def test_a_tasks_epochs_take_each_sample_once(samples, workers, batch_size):
    plan = TimingPlan(Program(FixedPeriod(3)), workers, AT_ONCE, loop=loop_over(samples, 2, batch_size, workers))
    run = simulate_timing(plan)
    assert (run.finish.status, run.finish.reason) == ("finished", "all epochs are done")
    assert run.books.ledger.samples_lost == run.books.ledger.samples_repeated == 0
    by_epoch = [sum(row.samples for row in run.rows if row.epoch == epoch) for epoch in range(2)]
    assert by_epoch == [samples, samples]


def test_for_very_many_workers_an_epoch_has_as_many_steps():
    few, many = loop_over(60_000, 1, 32, 256), loop_over(60_000, 1, 32, 257)
    assert (few.samples, many.samples) == (60_000, 0)
    assert sum(row.steps for row in timed(FixedPeriod(2), 256, loop=few)) == 256 * 7
    assert sum(row.steps for row in timed(FixedPeriod(2), 257, loop=many)) == 257 * 7


@pytest.mark.parametrize(
    ("limit", "reason"), [({"max_steps": 40}, "40 steps taken"), ({"max_s": 0.95}, "0.95 s of training are over")]
)
def test_a_run_ends_where_its_program_says(limit, reason):
    plan = TimingPlan(Program(FixedPeriod(2), **limit), 4, AT_ONCE, loop=own_steps(1000))
    run = simulate_timing(plan)
    assert run.finish.reason == reason
    assert run.rows[-1].steps == 8
    assert run.rows[-1].round == 5


def test_segments_end_and_the_controller_records_what_happened():
    class Notes(FleetObserver):
        def __init__(self):
            self.rows, self.events = [], []

        def recorded(self, command):
            self.rows += command.rounds

        def event(self, command, now):
            self.events.append((command.event, now))

    notes = Notes()
    program = Program(AdaComm(tau0=16, interval_s=20.0), segment_s=5.0)
    plan = TimingPlan(program, 4, AT_ONCE, loop=own_steps(1000), loss=HalvingLoss(10_000))
    run = simulate_timing(plan, notes)
    assert tuple(notes.rows) == run.rows
    names = [name for name, _ in notes.events]
    assert names.count("worker_joined") == 4
    assert names.count("period_changed") >= 4
    assert [now for _, now in notes.events] == sorted(now for _, now in notes.events)


@pytest.mark.parametrize("model", [ClusterModel(failures=Failures(1.0)), ClusterModel(arrivals_s=(3.0,))])
def test_failures_and_arrivals_are_refused_where_all_go_in_step(model):
    with pytest.raises(InputError, match="where only time is simulated"):
        TimingPlan(Program(FixedPeriod(1)), 4, model, own_steps(10))


def test_a_trial_of_local_steps_is_refused_where_nothing_is_learned():
    with pytest.raises(InputError, match="is not known where nothing is learned"):
        TimingPlan(Program(Switch(when=Stability())), 4, AT_ONCE, own_steps(10))


def test_a_thousand_workers_take_a_thousand_rounds_a_minute():
    began = time.process_time()
    cluster = ClusterModel(steps=ShiftedExponential(0.05, 0.02), bandwidth_mbps=10_000)
    rows = timed(FixedPeriod(1), 1024, cluster, program={"segment_s": 5.0}, loop=own_steps(100))
    assert len(rows) >= 100
    assert time.process_time() - began < 6
