"""What a member does with steps of some of the loop's optimizers: a discriminator's (D), then a generator's (G)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raysgd_local.algorithms.schedules import EveryStep, FixedPeriod
from raysgd_local.control.control_slots import Contribution, Control, Flags
from raysgd_local.control.member import events as m
from raysgd_local.control.member import machine
from raysgd_local.control.messages import Order, View
from raysgd_local.control.replicated import state as replicated
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import Replicated

D, G = 1, 2
FIRST = m.StepDue(4, 4, 0, D)  # on a batch of 4
FURTHER = m.StepDue(0, 0, 4, G)


def in_view(schedule, lengths=(100, 100), segment=1):
    state = Replicated(schedule.init(), open=True, cursors=(0, 0), lengths=lengths, left_epoch=(False, False))
    order = Order(View(1, ("a", "b")), segment, Program(schedule), state)
    member, _ = machine.advance(machine.Member("a", replicated=state, want=m.Want.STEP), m.Ordered(order))
    return member if member.todo == () else machine.advance(member, m.Done(1))[0]


def said(stepping, samples=4, **changes):
    changes = {"weight": 4.0, "steps": 1, "consumed": samples, "loss_sum": 4.0, "clock_s": 1.0, **changes}
    return Contribution(samples=samples, stepping=stepping, **changes)


def exchanged(*members):
    return m.Exchanged(1, Control(members), 0.1, True)


def test_a_further_step_on_a_batch_has_the_batch_s_weight_and_no_samples():
    member = in_view(FixedPeriod(2))
    member, commands = machine.advance(member, FIRST)
    assert commands == (m.LocalStep(0, D), m.Proceed())
    member, (step, exchange) = machine.advance(member, FURTHER)
    assert step == m.LocalStep(4, G)
    assert (exchange.said.weight, exchange.said.samples, exchange.said.steps) == (8.0, 4, 2)
    assert exchange.said.stepping == 0  # each member's steps are its own


def test_free_steps_by_name_count_as_if_the_loop_had_asked():
    asked = told = in_view(FixedPeriod(5))
    for due in (FIRST, FURTHER, FIRST, FURTHER):
        asked, _ = machine.advance(asked, due)
    told, _ = machine.advance(told, FIRST)
    told, _ = machine.advance(told, m.StepsTaken(3, 4, 4, 8, G))
    assert told == asked


def test_a_member_alone_weighs_one_so_that_its_mean_is_exact():
    state = Replicated(FixedPeriod(1).init(), open=True, cursors=(0,), left_epoch=(False,))
    order = Order(View(1, ("a",)), 1, Program(FixedPeriod(1)), state)
    member = machine.Member("a", order=order, replicated=state)
    for samples, weight in ((12, 1.0), (0, 0.0)):
        _, (_, exchange) = machine.advance(member, m.StepDue(samples, 0))
        assert exchange.said.weight == weight


def test_an_epoch_stays_open_while_a_loop_may_step_other_optimizers_on_its_last_batch():
    member = in_view(EveryStep(), lengths=(4, 4))
    member, (exchange,) = machine.advance(member, FIRST)
    assert exchange.said.flags & Flags.HOLDS
    member, _ = machine.advance(member, exchanged(exchange.said, exchange.said))
    assert member.known.open
    member, (exchange,) = machine.advance(member, FURTHER)
    member, _ = machine.advance(member, exchanged(exchange.said, exchange.said))
    assert member.known.open
    member, (exchange,) = machine.advance(member, m.ListEnded())
    assert (exchange.said.steps, exchange.said.flags) == (0, Flags.NONE | exchange.said.flags & Flags.LAST)
    member, _ = machine.advance(member, exchanged(exchange.said, exchange.said))
    assert not member.known.open


def test_local_steps_on_the_last_batch_stay_in_one_round():
    member = in_view(FixedPeriod(1), lengths=(4, 4))
    member, commands = machine.advance(member, FIRST)
    assert commands == (m.LocalStep(0, D), m.Proceed())
    member, commands = machine.advance(member, FURTHER)
    assert commands == (m.LocalStep(4, G), m.Proceed())
    member, (exchange,) = machine.advance(member, m.ListEnded())
    assert (exchange.said.steps, exchange.said.weight) == (2, 8.0)


def test_a_member_that_begins_a_batch_waits_for_those_that_finish_theirs():
    member = in_view(EveryStep())
    member, (exchange,) = machine.advance(member, FIRST)
    further = said(G, samples=0)
    member, (commit, again) = machine.advance(member, exchanged(exchange.said, further))
    assert commit.control.stepping == G
    assert (commit.control.stepping_weight, commit.control.weight) == (4.0, 8.0)
    assert (member.known.steps, member.known.samples, member.known.cursors) == (1, 0, (0, 0))
    assert replace(again.said, clock_s=0) == replace(exchange.said, clock_s=0)
    member, (commit, _) = machine.advance(member, exchanged(again.said, said(D)))
    assert (member.steps, member.known.samples, member.known.cursors) == (0, 8, (4, 4))
    assert commit.control.stepping == D


def test_members_in_step_must_stay_so_until_the_next_boundary():
    member = in_view(EveryStep())
    member, _ = machine.advance(member, FIRST)
    member, _ = machine.advance(member, exchanged(said(D), said(D)))
    member, _ = machine.advance(member, FURTHER)
    after, _ = machine.advance(member, exchanged(said(G, samples=0), said(D)))
    assert "optimizer 1 on rank 0; optimizer 0 on rank 1" in after.known.stopped
    next_segment, _ = machine.advance(member, m.Ordered(replace(member.order, segment=2, replicated=member.known)))
    after, _ = machine.advance(next_segment, exchanged(said(G, samples=0), said(D)))
    assert not after.known.stopped


@pytest.mark.parametrize(
    "members",
    [
        (said(D), said(G)),  # both begin a batch
        (said(D, samples=0), said(G, samples=0)),  # neither does
        (said(D, samples=0), said(G, samples=0), said(4)),
    ],
)
def test_nothing_is_settled_among_members_of_which_none_has_to_wait(members):
    control = Control(members)
    assert control.in_step is control
    assert len(control.steppings) > 1


def test_members_without_data_step_as_the_others_and_rates_are_compared_among_those_that_step():
    idle = Contribution(lr=0.5)
    control = Control((idle, said(G, lr=0.1), said(G, lr=0.1)))
    assert control.stepping == G
    state = Replicated(EveryStep().init(), open=True, cursors=(0, 0, 0), left_epoch=(False,) * 3)
    assert not replicated.commit(state, control, Program(EveryStep())).stopped
    apart = Control((idle, said(G, lr=0.1), said(G, lr=0.2)))
    assert "learning rates differ" in replicated.commit(state, apart, Program(EveryStep())).stopped


def test_an_overflow_of_a_member_that_waits_makes_nobody_skip_a_step():
    overflown = said(D, flags=Flags.OVERFLOW | Flags.NONFINITE)
    control = Control((overflown, said(G, samples=0))).in_step
    assert control.flags == Flags.WAITS
    assert control.sick == (False, False)
