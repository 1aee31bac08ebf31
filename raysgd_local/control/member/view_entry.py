"""Entering a view: what an order takes, one command after the other."""

from __future__ import annotations

from dataclasses import replace

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
from raysgd_local.control.messages import Order


def obey(member: Member, order: Order) -> Result:
    """An order that is past has no effect; one that ends the run, or is for a view without this member, ends it."""
    if member.order is not None and order.number <= member.order.number:
        return member, ()
    if order.finish or member.worker not in order.view.members:
        return replace(member, order=order), (Exit(order.finish or "left"),)
    todo = _entering(member, order)
    return go_on(replace(member, order=order, todo=todo, broken="", damaged="", over=False))


def _entering(member: Member, order: Order) -> tuple[Command | Adopt, ...]:
    """What entering a view takes: heal, then grow, then copy for a checkpoint.

    A member adopts what is resolved when it has the state that belongs to it, and not before: if the view breaks
    meanwhile, it must not claim a round that it missed.
    """
    state, rank = member.replicated, order.view.rank(member.worker)
    behind = state is not None and state.round < order.replicated.round
    todo: list[Command | Adopt] = []
    if state is not None and not behind and not order.restore:
        todo.append(Adopt())
    if member.order is None or member.order.view.number != order.view.number:
        todo.append(Connect(order.view.number, rank, len(order.view.members)))
    if order.heal is not None and state is not None:
        todo.append(Heal(order.heal, behind, state.period.mode, order.replicated.period.mode))
        todo += [Adopt()] if behind else []
    if order.restore:
        todo.append(Restore(order.restore))
    if order.donor is not None:
        todo.append(Transfer(order.donor, rank in order.receivers))
    if state is None or order.restore:
        todo.append(Adopt())
    if order.align:
        todo.extend(rounds.aligning(order.replicated, rank))
    if order.deal is not None and order.deal.restricted and not order.closing:
        todo.append(Fetch())
    if order.save is not None:
        todo.append(CopyState(order.save, order.replicated))
    return tuple(todo)


def left_of(member: Member) -> tuple[Command | Adopt, ...]:
    """What is still to be done where the view breaks before it is entered: nothing, but where this member is being
    healed. If that succeeds all the same it must not be done again: the missed round is in its state then.
    """
    heals = member.replicated is not None and not member.in_force.restore
    mark("break_while_being_healed", heals and member.todo[:1] == (Adopt(),))
    return member.todo[:1] if heals and member.todo[:1] == (Adopt(),) else ()


def _adopt(member: Member) -> Member:
    """Take over what is resolved; steps of a round that others committed are in it already."""
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
    """Give what is to be done, up to the next command that may fail; after the last, go on."""
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
