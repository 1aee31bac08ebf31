"""The member: the pure half of a worker. It decides what a round is, what is kept, and what is fenced off.

`advance(member, event, now)` gives the next state and commands. The shell (a Ray worker, a simulated one, a
plain process) runs the commands in order and feeds back what came of them; it decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from raysgd_local.control import replicated as shared
from raysgd_local.control.exchange import Contribution, Control, Flags
from raysgd_local.control.member_events import (
    Align,
    Arrive,
    Command,
    Commit,
    Connect,
    CopyState,
    Cut,
    Done,
    EpochLeft,
    EpochWanted,
    Evaluated,
    EvaluationDue,
    Event,
    Exchange,
    Exchanged,
    Exit,
    Failed,
    Heal,
    LeaveAsked,
    ListEnded,
    LocalStep,
    LoopFinished,
    LoopStarted,
    Ordered,
    Proceed,
    Restore,
    StepDue,
    StopAsked,
    Transfer,
    Want,
    YieldAsked,
)
from raysgd_local.control.protocol import Order, Report
from raysgd_local.control.replicated import Replicated
from raysgd_local.records import EvalRow, PeriodChange, RoundRow, replace


@dataclass(frozen=True)
class Adopt:
    """Among what is to be done: from here on what the order resolved is this member's own state."""


@dataclass(frozen=True)
class Member:
    """The state of one member.

    `steps`, `samples`, `taken` belong to the open round and are not committed: optimizer steps, samples, positions
    of the deal. `todo` is what remains of entering a view or of closing a round. `segment_round`, `segment_s`
    are where the segment began. `yield_asked` is the newest view and segment in which a boundary is asked for: the
    word may come before the order.
    """

    worker: str
    order: Order | None = None
    replicated: Replicated | None = None
    want: Want = Want.STATE
    todo: tuple[Command | Adopt, ...] = ()
    steps: int = 0
    samples: int = 0
    taken: int = 0
    dataset: int = 0
    over: bool = False
    broken: str = ""
    stop_asked: bool = False
    leaving: bool = False
    yield_asked: tuple[int, int] = (0, 0)
    segment_round: int = 0
    segment_s: float = 0.0
    rounds: tuple[RoundRow, ...] = ()
    evaluations: tuple[EvalRow, ...] = ()
    changes: tuple[PeriodChange, ...] = ()

    @property
    def rank(self) -> int:
        return self.in_force.view.rank(self.worker)

    @property
    def in_force(self) -> Order:
        if self.order is None:
            raise RuntimeError("no order yet")  # a bug of a shell
        return self.order

    @property
    def known(self) -> Replicated:
        if self.replicated is None:
            raise RuntimeError("no state yet")  # a bug of a shell
        return self.replicated


Result = tuple[Member, tuple[Command, ...]]


def advance(member: Member, event: Event, now: float) -> Result:
    """The member's next state and what its shell must do, in order.

    `now` is the shell's clock in seconds; what must be equal on all members never depends on it.
    """
    del now  # deadlines for slow members will
    match event:
        case Ordered(order):
            return _obey(member, order)
        case Cut(view, why):
            return _cut(member, view, why), ()
        case Failed(view, why):
            member = _cut(member, view, why)
            return _arrive(member) if member.broken else (member, ())
        case Done(view) | Exchanged(view) | Evaluated(view) if member.in_force.view.number != view:
            return member, ()
        case Done():
            return _next(member)
        case Exchanged():
            return _commit(member, event)
        case Evaluated(_, metrics):
            return _evaluated(member, metrics)
        case YieldAsked(view, segment):
            return replace(member, yield_asked=max(member.yield_asked, (view, segment))), ()
        case LeaveAsked():
            return replace(member, leaving=True), ()
        case StopAsked():
            return replace(member, stop_asked=True), ()
        case _:
            return _ask(member, event)


def _ask(member: Member, event: Event) -> Result:
    """The loop asks for something; it gets control back with `Proceed`."""
    match event:
        case LoopStarted():
            return _arrive(replace(member, want=Want.STATE))
        case StepDue(samples, consumed):
            return _step(member, samples, consumed)
        case ListEnded():
            return _resume(replace(member, want=Want.DATA))
        case EpochLeft():
            return _resume(replace(member, want=Want.CLOSE))
        case EpochWanted(samples):
            return _resume(replace(member, want=Want.EPOCH, dataset=samples))
        case EvaluationDue():
            return _resume(replace(member, want=Want.EVALUATE))
        case LoopFinished():
            return _arrive(replace(member, want=Want.FINISH))
        case _:
            raise TypeError(f"not an event of a loop: {event!r}")


def _step(member: Member, samples: int, consumed: int) -> Result:
    step = LocalStep(pending=member.samples)
    member = replace(
        member,
        want=Want.STEP,
        steps=member.steps + 1,
        samples=member.samples + samples,
        taken=member.taken + consumed,
    )
    if member.known.period.mode == "gradients":
        return _resume(member)
    member, commands = _resume(member)
    return member, (step, *commands)


def _resume(member: Member) -> Result:
    """Go on with what the loop wants: by itself, with an exchange, or by asking the controller."""
    if member.broken or member.over:
        return _arrive(member)
    state = member.known
    match member.want:
        case Want.STEP if _due(member):
            return _exchange(member)
        case Want.DATA if state.open and not state.stopped and state.used_up(member.rank, member.taken):
            return _exchange(member)
        case Want.CLOSE if state.open and not state.stopped:
            return _exchange(member)
        case Want.EPOCH if not state.open and not state.stopped:
            return _arrive(member)
        case Want.EVALUATE:
            return member, (Exchange(member.in_force.view.number, state.round, "evaluation"),)
        case Want.FINISH:
            return _arrive(member)
        case _:
            return member, (Proceed(),)


def _due(member: Member) -> bool:
    period = member.known.period
    return member.steps > 0 and (period.mode == "gradients" or member.steps >= period.tau)


def _exchange(member: Member) -> Result:
    said = Contribution(
        weight=float(member.samples),
        steps=member.steps,
        samples=member.samples,
        consumed=member.taken,
        flags=_flags(member),
    )
    state = member.known
    command = Exchange(member.in_force.view.number, state.round + 1, state.period.mode, said)
    return member, (command,)


def _flags(member: Member) -> Flags:
    flags = Flags.NONE
    if member.yield_asked == member.in_force.number:
        flags |= Flags.YIELD
    if member.leaving:
        flags |= Flags.LEAVING
    if member.stop_asked:
        flags |= Flags.STOP
    if member.want is Want.CLOSE:
        flags |= Flags.LEFT
    return flags


def _commit(member: Member, done: Exchanged) -> Result:
    """All contributions are here: the round is committed, and the next period follows from it alone."""
    before, control = member.known, done.control
    state = shared.commit(before, control, member.in_force.program, done.finite)
    member = replace(
        member,
        replicated=state,
        steps=0,
        samples=0,
        taken=0,
        rounds=(*_told(member.rounds, control), _row(member, before, done)),
        changes=(*member.changes, *_change(before, state)),
        over=_segment_over(member, state, control),
        todo=_aligning(state, member.rank),
    )
    commit: tuple[Command, ...] = () if state.diverged else (Commit(before.period.mode, control),)
    member, then = _next(member)
    return member, (*commit, *then)


def _segment_over(member: Member, state: Replicated, control: Control) -> bool:
    program = member.in_force.program
    return (
        bool(control.flags & (Flags.YIELD | Flags.LEAVING))
        or state.needs_deal
        or state.diverged
        or state.round - member.segment_round >= program.segment_rounds
        or state.elapsed_s - member.segment_s >= program.segment_s
    )


def _aligning(state: Replicated, rank: int) -> tuple[Command | Adopt, ...]:
    """Local state that must become equal now: all of it on entering gradient mode, always a non-finite one's."""
    alignment = state.alignment(rank)
    return () if alignment is None else (Align(*alignment),)


def _change(before: Replicated, state: Replicated) -> tuple[PeriodChange, ...]:
    if before.period.tau == state.period.tau:
        return ()
    return (PeriodChange(state.round, before.period.tau, state.period.tau, state.period.why),)


def _told(rows: tuple[RoundRow, ...], control: Control) -> tuple[RoundRow, ...]:
    """What the newest round sent is known, and told, with the round after it."""
    if not rows:
        return rows
    return (*rows[:-1], replace(rows[-1], wire_bytes=control.wire_bytes))


def _row(member: Member, before: Replicated, done: Exchanged) -> RoundRow:
    """The round as it will stand in `rounds.csv`; the wait for the slowest is known from the compute times."""
    control, order = done.control, member.in_force
    own_wait_s = control.slowest_s - control.members[member.rank].compute_s
    sync_s = max(0.0, done.exchange_s - own_wait_s)
    return RoundRow(
        round=before.round + 1,
        view=order.view.number,
        incarnation=order.incarnation,
        workers=len(control.members),
        tau=before.period.tau,
        scope="global",
        steps=control.steps,
        samples=control.samples,
        epoch=before.epoch,
        elapsed_s=before.elapsed_s + control.clock_s + control.slowest_s - control.members[0].compute_s + sync_s,
        compute_s=control.compute_s,
        sync_s=sync_s,
        wait_s=control.slowest_s - control.compute_s,
        wire_bytes=0,
        loss=control.loss,
        lr=control.members[0].lr,
    )


def _evaluated(member: Member, metrics: dict[str, float]) -> Result:
    state = shared.evaluated(member.known, metrics, member.in_force.program.target)
    row = EvalRow(state.round, state.steps, state.samples, max(0, state.epoch - 1), state.elapsed_s, dict(metrics))
    member = replace(member, replicated=state, want=Want.STEP, evaluations=(*member.evaluations, row))
    return _resume(member)


def _cut(member: Member, view: int, why: str) -> Member:
    if member.order is None or member.order.view.number != view or member.broken:
        return member
    return replace(member, broken=why, todo=())


def _arrive(member: Member) -> Result:
    order = member.order
    report = Report(
        worker=member.worker,
        view=order.view.number if order else 0,
        segment=order.segment if order else 0,
        place=member.want.place,
        replicated=member.replicated,
        steps=member.steps,
        taken=member.taken,
        leaving=member.leaving,
        samples=member.dataset,
        rounds=member.rounds,
        evaluations=member.evaluations,
        changes=member.changes,
        broken=member.broken,
    )
    return replace(member, rounds=(), evaluations=(), changes=()), (Arrive(report),)


def _obey(member: Member, order: Order) -> Result:
    """An order that is past has no effect; one for a view without this member ends it."""
    if member.order is not None and order.number <= member.order.number:
        return member, ()
    if member.worker not in order.view.members:
        return replace(member, order=order), (Exit(order.finish or "left"),)
    todo = _entering(member, order)
    return _next(replace(member, order=order, todo=todo, broken="", over=False))


def _entering(member: Member, order: Order) -> tuple[Command | Adopt, ...]:
    """What entering a view takes: heal, then grow, then copy for a checkpoint, then go on or end.

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
        todo.append(Heal(order.heal, behind, state.period.mode))
        todo += [Adopt()] if behind else []
    if order.restore:
        todo.append(Restore(order.restore))
    if order.donor is not None:
        todo.append(Transfer(order.donor, rank in order.receivers))
    if state is None or order.restore:
        todo.append(Adopt())
    if order.align:
        todo.extend(_aligning(order.replicated, rank))
    if order.save is not None:
        todo.append(CopyState(order.save, order.replicated))
    if order.finish:
        todo.append(Exit(order.finish))
    return tuple(todo)


def _adopt(member: Member) -> Member:
    """Take over what is resolved; steps of a round that others committed are in it already."""
    order, own = member.in_force, member.replicated
    state = order.replicated
    keeps = own is not None and own.round == state.round and not order.restore
    evaluated = own is not None and own.evaluations < state.evaluations
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


_AWAITED = (Connect, Heal, Transfer, Align, Restore)
"""Commands that may fail; the shell answers them with `Done` or `Failed`."""


def _next(member: Member) -> Result:
    """Give what is to be done, up to the next command that may fail; after the last, go on."""
    given: list[Command] = []
    for index, command in enumerate(member.todo):
        rest = member.todo[index + 1 :]
        if isinstance(command, Adopt):
            member = _adopt(member)
            continue
        given.append(command)
        if isinstance(command, _AWAITED):
            return replace(member, todo=rest), tuple(given)
        if isinstance(command, Exit):
            return replace(member, todo=()), tuple(given)
    member, then = _resume(replace(member, todo=()))
    return member, (*given, *then)
