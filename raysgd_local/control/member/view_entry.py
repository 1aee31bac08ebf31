"""Enter a view: carry out an order, one command after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from raysgd_local.control.data.streams.deal import Pending, StreamDeal
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
    Measure,
    Restore,
    Transfer,
    Want,
)
from raysgd_local.control.member.state import Adopt, Member, Result
from raysgd_local.control.messages import CheckpointStart, Continuation, FreshStart, Order
from raysgd_local.control.replicated.state import Replicated


def obey(member: Member, order: Order) -> Result:
    """Begin to carry out an order. Ignore a past one; end if it says so, or if this worker is not in its view."""
    if member.order is not None and order.number <= member.order.number:
        return member, ()
    if order.finish or member.worker not in order.view.members:
        return replace(member, order=order), (Exit(order.finish or "left"),)
    if order.measure:
        return _measures(member, order)
    todo = _entering(member, order)
    if member.order is None or member.order.deal != order.deal:
        member = replace(member, reached=None, taken=_taken_anew(member, order))
    member = replace(member, order=order, todo=todo)
    return go_on(replace(member, broken="", damaged="", over=False, aligned=False))


def _taken_anew(member: Member, order: Order) -> int:
    """Return the positions of this member's uncommitted steps in a new deal.

    They are as many as before, unless the list of a stream goes across epochs: there ends of epochs were among them.
    """
    if isinstance(order.deal, StreamDeal) and order.deal.epochs and member.taken:
        return Pending.of(order.deal, order.view.rank(member.worker)).count
    return member.taken


def _measures(member: Member, order: Order) -> Result:
    """Measure shards, then arrive at the same boundary again."""
    mark("shards_measured")
    wanted = dict(order.measure).get(member.worker, ())
    member = replace(member, order=replace(member.in_force, segment=order.segment))
    return replace(member, todo=(), over=True), (Measure(order.measured, wanted),)


def _entering(member: Member, order: Order) -> tuple[Command | Adopt, ...]:
    """Return the commands that enter the view: heal, then grow, then copy for a checkpoint.

    A member adopts the resolved state once its model has that state, not before: if the view breaks meanwhile, the
    member must not claim a round that it missed.
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
    """Return the part of `todo` that stays when the view breaks.

    It is empty, except while this member is being healed: if healing succeeds after all, the missed round is in its
    model and must not be committed again.
    """
    heals = member.replicated is not None and not member.in_force.restore
    mark("break_while_being_healed", heals and member.todo[:1] == (Adopt(),))
    return member.todo[:1] if heals and member.todo[:1] == (Adopt(),) else ()


def _adopt(member: Member) -> Member:
    """Take over the resolved state. Drop this member's steps of a round that others committed: the state has them."""
    order, own = member.in_force, member.replicated
    state = order.replicated
    keeps = own is not None and own.round == state.round and not order.restore
    evaluated = own is not None and own.evaluations < state.evaluations
    mark("steps_already_in_the_missed_round", own is not None and not keeps and member.steps > 0)
    mark("missed_evaluation", evaluated and member.want is Want.EVALUATE)
    return replace(
        member,
        replicated=state,
        want=Want.NOTHING if member.want is Want.EVALUATE and evaluated else member.want,
        epoch=member.epoch if own is not None and not order.restore else _first_epoch(state),
        steps=member.steps if keeps else 0,
        samples=member.samples if keeps else 0,
        taken=member.taken if keeps else 0,
        further=member.further if keeps else 0,
        reached=member.reached if keeps else None,
        segment_round=state.round,
        segment_s=state.elapsed_s,
    )


def _first_epoch(state: Replicated) -> int:
    """Return the epoch with which a loop begins that comes to this state: the earliest in which a loop is.

    Between two epochs, and after the last one, no loop is in any: it begins with the next.
    """
    return min(state.loops, default=state.epoch) if state.open else state.epoch


_AWAITED = (Connect, Heal, Transfer, Align, Restore, Fetch, Measure)
"""Commands of entering that may fail; the shell answers them with `Done` or `Failed`."""


def go_on(member: Member) -> Result:
    """Return the commands of `todo` up to the next one that may fail; after the last one, let the loop go on."""
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
