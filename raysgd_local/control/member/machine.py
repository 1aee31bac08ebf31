"""The member: the pure state machine in each worker. It runs rounds, commits them, and ignores late messages.

`advance(member, event)` returns the next state and the commands. A shell (a Ray worker, a simulated one, a plain
process) runs the commands in order and feeds back their outcomes; it decides nothing. A member has no clock: it knows
only times that it is told, and deadlines are the controller's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from raysgd_local.control.marks import mark
from raysgd_local.control.member import evaluating, probing, rounds, view_entry
from raysgd_local.control.member.events import (
    Ask,
    Averaged,
    Cut,
    Done,
    EpochLeft,
    EpochWanted,
    Evaluated,
    EvaluationDue,
    Event,
    Exchanged,
    Failed,
    LeaveAsked,
    ListEnded,
    LoopFinished,
    LoopStarted,
    Ordered,
    StepDue,
    StepsTaken,
    StopAsked,
    Want,
    YieldAsked,
)
from raysgd_local.control.member.state import Member, Result

__all__ = ["Member", "advance"]


def advance(member: Member, event: Event) -> Result:
    """Return the member's next state, and the commands that its shell must run in this order."""
    match event:
        case StepDue():
            return rounds.step(member, event)
        case StepsTaken(steps):
            return rounds.taken(member, steps, event), ()
        case Ordered(order):
            return view_entry.obey(member, order)
        case Cut(view, why):
            return _cut(member, view, why), ()
        case Failed(view, why, damaged):
            member = replace(_cut(member, view, why), damaged=damaged, todo=())
            return rounds.arrive(member) if member.broken else (member, ())
        case Done(view) | Exchanged(view) | Averaged(view) | Evaluated(view) if (
            member.in_force.view.number != view
        ):
            mark("late_outcome")
            return member, ()
        case Done():
            return view_entry.go_on(member)
        case Exchanged(_, control) if control.at_evaluation:
            return evaluating.evaluate(member, control)
        case Exchanged():
            member, commit = rounds.commit(member, event)
            member, then = view_entry.go_on(member)
            return member, (*commit, *then)
        case Averaged(_, control):
            member, commands = probing.averaged(member, control)
            member, then = rounds.resume(member)
            return member, (*commands, *then)
        case Evaluated(_, metrics):
            return evaluating.evaluated(member, metrics)
        case YieldAsked(view, segment):
            mark("yield_before_its_order", member.order is None or (view, segment) > member.order.number)
            return replace(member, yield_asked=max(member.yield_asked, (view, segment))), ()
        case LeaveAsked():
            return replace(member, leaving=True), ()
        case StopAsked():
            return replace(member, stop_asked=True), ()
        case _:
            return _ask(member, event)


def _ask(member: Member, event: Ask) -> Result:
    """Answer a request of the loop. The loop gets control back with `Proceed`."""
    match event:
        case LoopStarted(epochs):
            return rounds.arrive(replace(member, want=Want.STATE, epochs=epochs))
        case ListEnded():
            return rounds.list_ended(member, event)
        case EpochLeft():
            return rounds.leave_epoch(member)
        case EpochWanted(samples, epochs, shards):
            said = replace(member, dataset=samples, shards=shards, epochs=epochs or member.epochs)
            return rounds.resume(replace(said, want=Want.EPOCH))
        case EvaluationDue():
            return rounds.resume(replace(member, want=Want.EVALUATE))
        case LoopFinished():
            return rounds.finish(member)
        case _:
            assert_never(event)


def _cut(member: Member, view: int, why: str) -> Member:
    """Mark the view as broken. Ignore another view's number."""
    mark("cut_before_its_order", member.order is None or view > member.order.view.number)
    if member.order is None or member.order.view.number != view or member.broken:
        return member
    return replace(member, broken=why, todo=view_entry.left_of(member))
