"""Entering a view: the commands that an order takes, one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from raysgd_local.control.marks import mark
from raysgd_local.control.member import rounds
from raysgd_local.control.member.events import (
    Align,
    Command,
    Connect,
    CopyState,
    Exit,
    Fetch,
    Heal,
    Restore,
    Transfer,
    Want,
)
from raysgd_local.control.member.state import Adopt, Member, Result
from raysgd_local.control.messages import CheckpointStart, Continuation, FreshStart, Order
from raysgd_local.control.replicated.state import Replicated


def obey(member: Member, order: Order) -> Result:
    """Begin to follow an order. Ignore a past one; end where it says so, or where its view lacks this member."""
    if member.order is not None and order.number <= member.order.number:
        return member, ()
    if order.finish or member.worker not in order.view.members:
        return replace(member, order=order), (Exit(order.finish or "left"),)
    todo = _entering(member, order)
    return go_on(replace(member, order=order, todo=todo, broken="", damaged="", over=False))


def _entering(member: Member, order: Order) -> tuple[Command | Adopt, ...]:
    """The commands that entering a view takes: heal, then grow, then copy for a checkpoint.

    A member adopts the resolved state when its model belongs to that state, and not before: if the view breaks
    meanwhile, it must not claim a round that it missed.
    """
    rank = order.view.rank(member.worker)
    todo: list[Command | Adopt] = []
    if member.order is None or member.order.view.number != order.view.number:
        todo.append(Connect(order.view.number, rank, len(order.view.members)))
    match order.start:
        case FreshStart(receivers):
            todo += [Transfer(0, rank in receivers), Adopt()]
        case CheckpointStart(checkpoint):
            todo += [Restore(checkpoint), Adopt()]
        case Continuation() as continuation:
            todo = _continuing(member.replicated, order.replicated, continuation, rank, todo)
        case _:
            assert_never(order.start)
    if order.deal is not None and order.deal.local_data and not order.closing:
        todo.append(Fetch())
    if order.save is not None:
        todo.append(CopyState(order.save, order.replicated))
    return tuple(todo)


def _continuing(
    own: Replicated | None, resolved: Replicated, start: Continuation, rank: int, connect: list[Command | Adopt]
) -> list[Command | Adopt]:
    """Adopt the resolved state first where this member has it, else when it is healed or has received it."""
    behind = own is not None and own.round < resolved.round
    todo = list(connect) if own is None or behind else [Adopt(), *connect]
    if start.heal and own is not None:
        todo.append(Heal(start.lead, behind, own.period.mode, resolved.period.mode))
        todo += [Adopt()] if behind else []
    if start.receivers:
        todo.append(Transfer(start.lead, rank in start.receivers))
    if own is None:
        todo.append(Adopt())
    if start.align:
        todo.extend(rounds.aligning(resolved, rank))
    return todo


def left_of(member: Member) -> tuple[Command | Adopt, ...]:
    """The commands that stay to be done where the view breaks before it is entered.

    None, unless this member is being healed: if that succeeds all the same, the missed round is in its state and must
    not be committed again.
    """
    heals = member.replicated is not None and not member.in_force.restore
    mark("break_while_being_healed", heals and member.todo[:1] == (Adopt(),))
    return member.todo[:1] if heals and member.todo[:1] == (Adopt(),) else ()


def _adopt(member: Member) -> Member:
    """Take over the resolved state; steps of a round that others committed are in it already."""
    order, own = member.in_force, member.replicated
    state = order.replicated
    keeps = own is not None and own.round == state.round and not order.restore
    evaluated = own is not None and own.evaluations < state.evaluations
    mark("steps_already_in_the_missed_round", own is not None and not keeps and member.steps > 0)
    mark("missed_evaluation", evaluated and member.want is Want.EVALUATE)
    return replace(
        member,
        replicated=state,
        want=Want.STEP if member.want is Want.EVALUATE and evaluated else member.want,
        steps=member.steps if keeps else 0,
        samples=member.samples if keeps else 0,
        taken=member.taken if keeps else 0,
        segment_round=state.round,
        segment_s=state.elapsed_s,
    )


_AWAITED = (Connect, Heal, Transfer, Align, Restore, Fetch)
"""Commands that may fail; the shell answers them with `Done` or `Failed`."""


def go_on(member: Member) -> Result:
    """Give the commands of `todo`, up to the next one that may fail; after the last, let the loop go on."""
    given: list[Command] = []
    for index, command in enumerate(member.todo):
        rest = member.todo[index + 1 :]
        if isinstance(command, Adopt):
            member = _adopt(member)
            continue
        given.append(command)
        if isinstance(command, CopyState):
            member = replace(member, copied=command.save.name)
        if isinstance(command, _AWAITED):
            return replace(member, todo=rest), tuple(given)
    member = replace(member, todo=())
    member, then = rounds.arrive(member) if member.in_force.closing else rounds.resume(member)
    return member, (*given, *then)
