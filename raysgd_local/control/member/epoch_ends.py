"""The end of an epoch on a member: whether its loop may leave it, and steps that come after it."""

from __future__ import annotations

from raysgd_local.control.data.deal import ends_at
from raysgd_local.control.data.streams import parts
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.marks import mark
from raysgd_local.control.member import probing
from raysgd_local.control.member.events import Command, LocalStep, Proceed, StepDue, Want
from raysgd_local.control.member.state import Member


def through(member: Member) -> bool:
    """Whether the loop took steps on all its samples of the epoch in which it is."""
    state, deal = member.known, member.in_force.deal
    if state.lengths is None or deal is None:
        return True
    if isinstance(deal, StreamDeal) and not deal.epochs:
        return member.trial.last if probing.under_way(member) else member.used_up(member.uncommitted.taken)
    tried = member.trial.taken if probing.under_way(member) else 0
    taken = state.cursors[member.rank] + member.uncommitted.taken + tried
    if isinstance(deal, StreamDeal):
        return taken >= parts.ends_at(deal, member.epoch)
    return taken >= ends_at(deal, member.epoch)[member.rank]


def closes(member: Member) -> bool:
    """Whether this member still has to take part in rounds before it leaves its epoch: until that has closed.

    Where rounds go across epochs, until all know that it leaves its epoch early; if its loop has ended, until the end.
    """
    state = member.known
    if not state.open or state.stopped or not state.epochs or member.want is Want.FINISH:
        return state.open and not state.stopped
    return state.skips[member.rank] <= member.epoch


def step_between_epochs(member: Member, due: StepDue) -> tuple[Command, ...]:
    """Answer a step after the epoch ended: a second one on the last batch, for example, without samples.

    A member alone takes it, as plain PyTorch would. Of several, some may have no such step, and no round is left in
    which to average it: they would come to an evaluation or a checkpoint with different models, so it is dropped.
    """
    mark("step_between_epochs")
    alone = len(member.in_force.view.members) == 1 and member.known.period.mode != "gradients"
    return (LocalStep(stepping=due.stepping), Proceed()) if alone else (Proceed(),)
