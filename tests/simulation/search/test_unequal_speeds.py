"""A worker at half speed, in virtual time under the real machines: nobody waits for it, and nothing is lost."""

from __future__ import annotations

from statistics import median

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.replicated.balancing import Balance
from raysgd_local.control.replicated.program import Program
from raysgd_local.simulation.cluster.cluster_model import ClusterModel, Constant
from raysgd_local.simulation.engine.loop import LoopPlan
from raysgd_local.simulation.engine.scenario import Scenario
from raysgd_local.simulation.search import seed_search
from raysgd_local.simulation.search.random_scenario import QUICK


def ended(balance, speeds, samples=4000, batch_scale=()):
    cluster = ClusterModel(steps=Constant(0.05), speeds=speeds)
    program = Program(FixedPeriod(8), balance=balance, batch_scale=batch_scale)
    settings = Settings(program, workers_min=4, workers_max=4, timeouts=QUICK)
    outcome = seed_search.attempt(Scenario(settings, LoopPlan(epochs=2, samples=samples), cluster=cluster))
    assert not isinstance(outcome, str), outcome
    assert outcome.controller.books.ledger.samples_lost == 0
    return outcome


def round_s(outcome):
    """The second epoch's typical round: by then shares are settled."""
    return median(
        row.compute_s + row.wait_s + row.sync_s for row in outcome.rounds if row.epoch == 1 and row.steps
    )


def test_rounds_with_a_worker_at_half_speed_are_no_longer_than_without():
    undisturbed = round_s(ended(Balance(), (1.0,)))
    assert round_s(ended(None, (1.0, 1.0, 1.0, 0.5))) / undisturbed > 1.9
    assert round_s(ended(Balance(), (1.0, 1.0, 1.0, 0.5))) / undisturbed < 1.05


def test_an_epoch_ends_for_all_at_once_though_steps_are_whole_and_shares_are_not():
    outcome = ended(Balance(), (1.0, 1.0, 1.0, 0.56), samples=12_000)  # 4 of 8 steps, not 4.5
    full = [row.steps for row in outcome.rounds if row.epoch == 1 and row.steps]
    assert full.count(3 * 8 + 4) > 90
    assert len(full) - full.count(3 * 8 + 4) <= 2


def test_workers_with_batches_of_different_sizes_are_dealt_as_many_samples_as_they_take_in_the_same_steps():
    outcome = ended(
        None, (1.0,), samples=5 * 4 * 8 * 8, batch_scale=(2.0, 0.5, 0.5)
    )  # 5 rounds of 8 steps of 4 × 4
    full = [row for row in outcome.rounds if row.steps]
    assert [(row.steps, row.samples) for row in full] == 2 * 10 * [(4 * 8, 4 * 4 * 8)]


def test_equal_workers_run_as_if_there_were_no_balance():
    with_it, without = ended(Balance(), (1.0,)), ended(None, (1.0,))
    assert with_it.rounds == without.rounds


def test_a_worker_that_can_not_keep_up_at_all_is_let_go():
    outcome = ended(Balance(), (1.0, 1.0, 1.0, 1.0, 0.05), samples=400)
    assert not any(event.event == "let_go" for _, event in outcome.recorded)
    cluster = ClusterModel(steps=Constant(0.05), speeds=(1.0, 1.0, 1.0, 0.05))
    settings = Settings(Program(FixedPeriod(8), balance=Balance()), workers_min=1, workers_max=4, timeouts=QUICK)
    outcome = seed_search.attempt(Scenario(settings, LoopPlan(epochs=2, samples=4000), cluster=cluster))
    assert [e.fields["worker"] for _, e in outcome.recorded if e.event == "let_go"][:1] == ["w3"]
    assert outcome.controller.workers_lost == 0
