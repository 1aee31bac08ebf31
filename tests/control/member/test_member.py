"""What a member makes of orders, words from the side, and rounds."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from raysgd_local.algorithms.schedules import AdaComm, Delayed, EveryStep, FixedPeriod
from raysgd_local.algorithms.schedules.base import Period, Probe
from raysgd_local.control.control_slots import Contribution, Control, Flags
from raysgd_local.control.member import events as m
from raysgd_local.control.member import machine
from raysgd_local.control.member.state import Flight
from raysgd_local.control.messages import CheckpointStart, Continuation, Order, View
from raysgd_local.control.replicated import state as replicated
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import Replicated


def in_view(schedule, members=("a", "b"), segment=1):
    """A member at the start of an epoch over data of its own."""
    state = Replicated(schedule.init(), open=True, cursors=(0,) * len(members), left_epoch=(False,) * len(members))
    order = Order(View(1, members), segment, Program(schedule), state)
    return replace(machine.Member("a"), order=order, replicated=state), order


def said(**changes):
    return Contribution(**{"weight": 4.0, "steps": 1, "samples": 4, "loss_sum": 4.0, "clock_s": 1.0, **changes})


def test_an_order_has_an_effect_once():
    member, order = in_view(FixedPeriod(2))
    assert machine.advance(member, m.Ordered(order)) == (member, ())
    _, commands = machine.advance(member, m.Ordered(replace(order, segment=2)))
    assert commands == (m.Proceed(),)


def test_a_yield_that_comes_before_its_order_is_passed_on():
    member, order = in_view(FixedPeriod(1))
    member, _ = machine.advance(member, m.YieldAsked(1, 2))
    _, commands = machine.advance(member, m.StepDue(4, 0))
    assert not commands[-1].said.flags & Flags.YIELD
    member, _ = machine.advance(member, m.Ordered(replace(order, segment=2)))
    _, commands = machine.advance(member, m.StepDue(4, 0))
    assert commands[-1].said.flags & Flags.YIELD


def test_steps_that_a_loop_takes_by_itself_count_as_if_it_had_asked():
    member, _ = in_view(FixedPeriod(4))
    asked = member
    for left in (2, 1, 0):
        asked, commands = machine.advance(asked, m.StepDue(4, 5))
        assert commands == (m.LocalStep(pending=4 * (2 - left)), m.Proceed(free=left))
    told, _ = machine.advance(member, m.StepDue(4, 5))
    told, nothing = machine.advance(told, m.StepsTaken(steps=2, samples=8, consumed=10))
    assert nothing == ()
    assert told == asked
    _, (_, exchange) = machine.advance(told, m.StepDue(4, 5))
    assert (exchange.said.steps, exchange.said.samples, exchange.said.consumed) == (4, 16, 20)


@pytest.mark.parametrize(
    ("schedule", "changes"),
    [
        (EveryStep(), {}),
        (FixedPeriod(1), {}),
        (Delayed(FixedPeriod(8), delay=4), {"flight": Flight(8, 32, 32)}),
        (FixedPeriod(8), {"broken": "cut"}),
        (FixedPeriod(8), {"over": True}),
    ],
)
def test_a_loop_takes_no_step_by_itself_where_there_may_be_more_to_do_than_that(schedule, changes):
    member, _ = in_view(schedule)
    _, commands = machine.advance(replace(member, **changes), m.StepDue(4, 5))
    assert not any(command.free for command in commands if isinstance(command, m.Proceed))


@pytest.mark.parametrize("steps", [2, 0])
def test_a_step_that_a_broken_view_left_pending_is_dropped_before_a_probe(steps):
    """Undoing the probe would drop its gradient, and its samples would count all the same."""
    schedule = SimpleNamespace(period=Period(1, "gradients", probe=Probe(steps=steps, held_out=2)))
    member, order = in_view(FixedPeriod(1))
    state = replace(member.known, schedule=schedule, lengths=(12, 12))
    pending = replace(member, replicated=state, steps=1, samples=4, taken=4, tried_in=(1, 0))
    after, commands = machine.advance(pending, m.Ordered(replace(order, segment=2, replicated=state)))
    assert commands == (m.Mark(local=steps > 0), m.Proceed())
    assert after.uncommitted == Flight(0, 0, 0)


def test_a_sick_member_is_aligned_after_the_round_and_again_after_a_break():
    member, order = in_view(FixedPeriod(1))
    control = Control((said(weight=0.0, flags=Flags.NONFINITE), said()))
    member, commands = machine.advance(member, m.Exchanged(1, control, 0.1))
    assert commands[-1] == m.Align(1, receive=True)
    again = replace(order, view=View(2, ("a", "b")), replicated=member.known, start=Continuation(align=True))
    member, _ = machine.advance(replace(member, todo=()), m.Ordered(again))
    _, commands = machine.advance(member, m.Done(2))
    assert commands == (m.Align(1, receive=True),)


@pytest.mark.parametrize(("outcome", "round"), [(m.Done(2), 1), (m.Failed(2, "broke"), 0)])
def test_a_member_that_was_healed_as_the_view_broke_has_the_round_that_it_missed(outcome, round):
    member, order = in_view(EveryStep())
    resolved = replicated.commit(member.known, Control((said(), said())), order.program)
    again = replace(order, view=View(2, ("a", "b")), replicated=resolved, start=Continuation(lead=1, heal=True))
    member, _ = machine.advance(member, m.Ordered(again))
    member, (heal,) = machine.advance(member, m.Done(2))
    assert heal == m.Heal(1, True, "gradients", "gradients")
    member, _ = machine.advance(member, m.Cut(2, "somebody died"))
    member, (arrive,) = machine.advance(member, outcome)
    assert (arrive.report.broken, arrive.report.replicated.round) == ("somebody died", round)


@pytest.mark.parametrize("schedule", [AdaComm(tau0=2), EveryStep()])
def test_a_round_without_one_finite_contribution_has_diverged(schedule):
    member, order = in_view(schedule)
    control = Control((said(weight=0.0, flags=Flags.NONFINITE), said(weight=0.0, samples=0, steps=0)))
    state = replicated.commit(member.known, control, order.program)
    assert state.diverged
    assert state.stopped.startswith("diverged")


def test_an_overflow_of_the_loss_scale_everywhere_is_no_divergence():
    member, order = in_view(EveryStep())
    flags = Flags.NONFINITE | Flags.OVERFLOW
    state = replicated.commit(member.known, Control((said(weight=0.0, flags=flags),) * 2), order.program)
    assert not state.diverged
    assert state.alignment(0) is None


def test_the_loss_of_a_sick_member_is_no_first_loss_of_adacomm():
    member, order = in_view(AdaComm(tau0=2))
    control = Control((said(weight=0.0, flags=Flags.NONFINITE, loss_sum=float("nan")), said()))
    state = replicated.commit(member.known, control, order.program)
    assert state.schedule.first_loss == 1.0


@pytest.mark.parametrize(
    ("flags", "limits", "samples", "whole"),
    [
        (Flags.NONE, {}, 8, False),
        (Flags.NONE, {}, 4, False),  # an epoch ends, and others follow
        (Flags.LAST, {}, 4, True),
        (Flags.LAST, {}, 8, False),
        (Flags.LEAVING, {}, 8, True),
        (Flags.STOP, {}, 8, True),
        (Flags.YIELD, {}, 8, False),
        (Flags.NONE, {"max_steps": 2}, 8, True),
        (Flags.NONE, {"max_steps": 3}, 8, False),
        (Flags.NONE, {"max_s": 1.0}, 8, True),
    ],
)
def test_what_messages_left_out_is_sent_in_somebody_s_last_round_and_in_everybody_s(flags, limits, samples, whole):
    member, order = in_view(FixedPeriod(1))
    state = replace(member.known, lengths=(samples, samples))
    control = Control((said(consumed=4, residual=0.5), said(consumed=4, residual=0.25, flags=flags)))
    program = replace(order.program, **limits)
    assert replicated.extent(state, control, program).everything is whole
    assert replicated.commit(state, control, program).residuals == ((0.0, 0.0) if whole else (0.5, 0.25))


def test_where_nobody_took_a_step_nothing_is_sent():
    member, order = in_view(FixedPeriod(1))
    control = Control((said(weight=0.0, residual=0.5, flags=Flags.LEAVING),) * 2)
    assert not replicated.extent(member.known, control, order.program).everything
    assert replicated.commit(member.known, control, order.program).residuals == (0.5, 0.5)


def test_a_member_says_which_epoch_is_its_loop_s_last():
    member, _ = in_view(FixedPeriod(1))
    for epochs, last in ((1, True), (2, False)):
        _, commands = machine.advance(replace(member, epochs=epochs), m.StepDue(4, 0))
        assert bool(commands[-1].said.flags & Flags.LAST) is last


@pytest.mark.parametrize(
    ("open", "epoch"), [(False, 2), (True, 1)], ids=["after the last epoch", "within an epoch"]
)
def test_a_loop_that_begins_at_a_checkpoint_begins_with_an_epoch_that_is_not_over(open, epoch):
    """Across epochs, after the last one: loops asked for ever for an epoch that was over (seed 9317 of the search)."""
    schedule = FixedPeriod(2)
    state = Replicated(
        schedule.init(), epoch=2, open=open, cursors=(4,), left_epoch=(False,), epochs=3 if open else 2, loops=(1,)
    )
    order = Order(
        View(1, ("a",)), 1, Program(schedule, across_epochs=True), state, start=CheckpointStart("000001")
    )
    member, _ = machine.advance(machine.Member("a"), m.LoopStarted(3 if open else 2))
    member, _ = machine.advance(member, m.Ordered(order))
    for _ in ("connected", "restored"):
        member, _ = machine.advance(member, m.Done(1))
    assert member.loop_epoch == epoch
