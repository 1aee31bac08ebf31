"""Evaluations on a member: of the committed model, or in the middle of a round, of the mean that one would give."""

from __future__ import annotations

from raysgd_local.control.control_slots import Control
from raysgd_local.control.marks import mark
from raysgd_local.control.member import rounds
from raysgd_local.control.member.events import Evaluate, Want
from raysgd_local.control.member.state import Member, Result
from raysgd_local.control.replicated import endings
from raysgd_local.records import EvalRow, replace_fields


def evaluate(member: Member, control: Control) -> Result:
    """Evaluate in the middle of a round: all members came for it, and none has anything else to do first."""
    mark("evaluated_in_a_round", control.steps > 0)
    state = member.known
    shows = state.period.mode != "gradients" and (control.weight > 0 or not state.settled)
    command = Evaluate(member.in_force.view.number, state.round, control, shows)
    return replace_fields(member, shown=control), (command,)


def evaluated(member: Member, metrics: dict[str, float]) -> Result:
    """Enter the evaluation's metrics into the state, and let the loop go on."""
    shown, before = member.shown or Control(()), member.known
    state = endings.evaluated(before, metrics, member.in_force.program.target, shown.steps)
    row = EvalRow(
        round=state.round,
        steps=state.steps + shown.steps,
        samples=state.samples + shown.samples,
        epoch=max(0, (member.epoch if state.epochs else state.epoch) - 1),
        elapsed_s=state.elapsed_s + (shown.clock_s if shown.members else 0.0),
        metrics=dict(metrics),
    )
    evaluations = (*member.evaluations, row)
    member = replace_fields(member, replicated=state, want=Want.NOTHING, evaluations=evaluations, shown=None)
    return rounds.resume(member)
