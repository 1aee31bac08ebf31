"""Rounds on a member: take steps, exchange when an averaging is due, commit the result, arrive at boundaries."""

from __future__ import annotations

from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.control_slots import Contribution, Control, Flags, HeldOut
from raysgd_local.control.marks import mark
from raysgd_local.control.member import probing
from raysgd_local.control.member.epoch_ends import closes, step_between_epochs, through
from raysgd_local.control.member.events import (
    Align,
    Arrive,
    Collect,
    Command,
    Commit,
    Evaluate,
    Exchange,
    Exchanged,
    Launch,
    ListEnded,
    LocalStep,
    Proceed,
    StepDue,
    StepsTaken,
    Want,
)
from raysgd_local.control.member.state import Adopt, Flight, Member, ProbeProgress, Result
from raysgd_local.control.messages import Report
from raysgd_local.control.replicated import state as shared
from raysgd_local.control.replicated.round_row import CommittedRound, RoundRow
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.records import PeriodChange, replace_fields

_FADING = 0.9
"""Decay of the round-time estimate: one short round, such as an epoch's last, must not shrink the time-outs."""


def step(member: Member, due: StepDue) -> Result:
    """Take a step of the loop: locally at once, or in the exchange with all members; none once training is over."""
    if member.known.stopped:
        mark("step_after_the_end")
        return member, (Proceed(),)
    if not member.known.open:
        return member, step_between_epochs(member, due)
    if probing.under_way(member):
        member, tried = probing.step(member, due)
        member, commands = resume(member)
        return member, (*tried, *commands)
    alone = LocalStep(pending=member.uncommitted.samples, stepping=due.stepping)
    member = taken(replace_fields(member, want=Want.STEP), 1, due)
    if member.known.period.mode == "gradients":
        return resume(member)
    left = _left(member)
    if left > 0:
        return member, (alone, Proceed(free=left - 1))
    member, commands = resume(member)
    return member, (alone, *commands)


def list_ended(member: Member, event: ListEnded) -> Result:
    """Answer a loop that asks for a batch and has used up its list. Rows at its end may have given no sample."""
    member = replace_fields(member, want=Want.DATA)
    if probing.under_way(member):
        return resume(replace_fields(member, trial=probing.ended(member.trial, event.reached)))
    taken, reached = member.taken + event.consumed, event.reached or member.reached
    return resume(replace_fields(member, taken=taken, reached=reached))


def leave_epoch(member: Member) -> Result:
    """Let the loop go on to its next epoch, if rounds go across epochs. Otherwise all leave the epoch together.

    A loop that leaves its batches early tells the others with a round, so that they get the rest of its samples.
    """
    state = member.known
    if state.open and member.epoch + 1 < state.epochs and through(member):
        return resume(replace_fields(member, want=Want.NOTHING, epoch=member.epoch + 1))
    return resume(replace_fields(member, want=Want.CLOSE))


def finish(member: Member) -> Result:
    """Arrive for the last time. A loop that ends before the others' first leaves them the rest of its samples."""
    member = replace_fields(member, want=Want.FINISH)
    return resume(member) if member.known.epochs else arrive(member)


def taken(member: Member, steps: int, took: StepDue | StepsTaken) -> Member:
    """Add steps to the open round."""
    return replace_fields(
        member,
        steps=member.steps + steps,
        samples=member.samples + took.samples,
        taken=member.taken + took.consumed,
        further=member.further + took.further,
        stepping=took.stepping,
        reached=took.reached or member.reached,
    )


def _left(member: Member) -> int:
    """Return the number of local steps left in the open round; 0 where the member may have something else to do first.

    These are the cases: an exchange is in flight, the view or segment is over, steps are pending, a probe is due, or
    only some members take part in rounds.
    """
    state = member.known
    plain = member.flight is None and not (member.broken or member.over or state.drain)
    if not plain or state.period.probe is not None or member.in_force.program.averaging.fraction < 1:
        return 0
    return state.local_steps(member.rank) - member.steps


def resume(member: Member) -> Result:
    """Answer the loop's present request: let it go on, exchange, or arrive at a boundary."""
    if member.flight is not None and not member.broken:
        return member, ((Proceed() if _goes_on(member) else Collect()),)
    if member.broken or member.over:
        return arrive(member)
    state = member.known
    if state.drain:
        return _exchange(member)
    if state.period.probe is not None and probing.due(member):
        member, tried = probing.go_on(member, state.period.probe)
        if probing.under_way(member):
            return member, tried  # the probe goes on: with the loop's next batch, or with an averaging
        member, commands = resume(member)
        return member, (*tried, *commands)
    match member.want:
        case Want.STEP if _due(member):
            return _exchange(member)
        case Want.STEP | Want.EPOCH if _sits_out(member):
            return _exchange(replace_fields(member, want=Want.STEP))
        case Want.DATA if state.open and not state.stopped and member.used_up(member.taken):
            return _exchange(member)
        case Want.CLOSE | Want.FINISH if closes(member):
            return _exchange(member)
        case Want.CLOSE if state.epochs:
            return replace_fields(member, want=Want.NOTHING, epoch=member.epoch + 1), (Proceed(),)
        case Want.EPOCH if not state.open and not state.stopped:
            return arrive(member)
        case Want.EPOCH if state.open and member.stop_asked and state.epochs and not state.stopped:
            return _exchange(member)
        case Want.EVALUATE if state.open and state.epochs and not state.stopped:
            return _exchange(member)
        case Want.EVALUATE:
            return member, (Evaluate(member.in_force.view.number, state.round),)
        case Want.FINISH:
            return arrive(member)
        case _:
            return member, (Proceed(),)


def _due(member: Member) -> bool:
    """Whether the round's exchange is due after a step.

    Where steps are local, the last batch's steps stay in one round: another round would have no samples.
    """
    state = member.known
    if state.period.mode == "gradients":
        return member.steps > 0
    unfinished = _holds(member) and member.used_up(member.uncommitted.taken)
    return member.steps > 0 and member.steps >= state.local_steps(member.rank) and not unfinished


def _holds(member: Member) -> bool:
    """Whether the loop may step other optimizers on the batch of the newest step."""
    return member.stepping != 0 and member.want is Want.STEP


def _goes_on(member: Member) -> bool:
    """Whether this member takes another step while an averaging is in flight. Members may decide differently.

    It takes at most the schedule's delay, and fewer steps than the round has. It takes none if a worker, a checkpoint
    or the end of the run waits for the model, or if the loop has no more steps in this epoch.
    """
    state, ends = member.known, (Want.CLOSE, Want.EVALUATE, Want.FINISH)
    if member.in_force.program.whole or member.leaving or member.stop_asked or state.drain or member.want in ends:
        return False
    if member.want is Want.DATA and member.used_up(member.uncommitted.taken):
        return False
    return member.steps < min(state.period.delay, state.local_steps(member.rank) - 1)


def _sits_out(member: Member) -> bool:
    """Whether this member only takes part in this round's averaging, because other members were drawn to step."""
    state, fraction = member.known, member.in_force.program.averaging.fraction
    if fraction >= 1 or not state.open or state.stopped or state.idle[member.rank]:
        return False
    return member.rank not in state.participants(fraction)


def _exchange(member: Member) -> Result:
    said = Contribution(
        weight=_weight(member),
        steps=member.steps,
        stepping=member.stepping if member.steps and member.known.period.mode == "gradients" else 0,
        samples=member.samples,
        consumed=member.taken,
        split=member.reached.split if member.reached is not None else 0,
        epoch=member.epoch,
        flags=_flags(member),
        held_out=member.held_out,
    )
    state = member.known
    mode = state.period.mode
    how: Mode = "partial" if member.in_force.program.stages(mode) else mode
    command = Exchange(member.in_force.view.number, state.round + 1, how, said)
    travelling = Flight(member.steps, member.samples, member.taken, member.further)
    ahead = replace_fields(member, flight=travelling, steps=0, samples=0, taken=0, further=0)
    return (ahead, (Launch(command), Proceed())) if _goes_on(ahead) else (member, (command,))


def _weight(member: Member) -> float:
    """Return the number of samples, those of further steps on a batch included; 1 for one member: its mean is exact."""
    samples = float(member.samples + member.further)
    alone = len(member.in_force.view.members) == 1 and not member.in_force.program.partial
    return min(samples, 1.0) if alone else samples


def _flags(member: Member) -> Flags:
    flags = Flags.NONE
    if member.yield_asked == member.in_force.number:
        flags |= Flags.YIELD
    if member.leaving:
        flags |= Flags.LEAVING
    if member.stop_asked:
        flags |= Flags.STOP
    if member.want in (Want.CLOSE, Want.FINISH):
        flags |= Flags.LEFT
    if _holds(member):
        flags |= Flags.HOLDS
    if member.known.epoch == member.epochs - 1:
        flags |= Flags.LAST
    if member.want is Want.FINISH:
        flags |= Flags.ENDED
    if member.want is Want.EVALUATE:
        flags |= Flags.EVALUATES
    if member.want is Want.EPOCH:
        flags |= Flags.BETWEEN
    if member.reached is not None and member.reached.last:
        flags |= Flags.EXHAUSTED
    return flags


def commit(member: Member, done: Exchanged) -> Result:
    """Commit the round whose contributions are all here; the next period follows from them alone.

    The member's `todo` then has the alignment of local state, if one is due.
    """
    before, control = member.known, done.control if member.aligned else done.control.in_step
    state = shared.commit(before, control, member.in_force.program, done.finite)
    row = _row(member, before, state, replace_fields(done, control=control))
    stays = member.flight is not None or control.members[member.rank].flags & Flags.WAITS
    since = Flight(member.steps, member.samples, member.taken, member.further) if stays else Flight(0, 0, 0)
    member = replace_fields(
        member,
        replicated=state,
        flight=None,
        **vars(since),
        rounds=(*_told(member.rounds, control), row),
        changes=(*member.changes, *_change(before, state)),
        round_s=max(row.compute_s + row.wait_s + row.sync_s, _FADING * member.round_s),
        over=_segment_over(member, state, control),
        todo=aligning(state, member.rank),
        aligned=before.period.mode == "gradients" and (member.aligned or len(done.control.steppings) == 1),
        trial=ProbeProgress(),
        held_out=HeldOut(),
    )
    return member, () if state.diverged else (Commit(before.period.mode, control, state.period.mode),)


def _segment_over(member: Member, state: Replicated, control: Control) -> bool:
    program = member.in_force.program
    return (
        bool(control.flags & (Flags.YIELD | Flags.LEAVING))
        or state.needs_deal
        or state.diverged
        or bool(state.at_odds)
        or state.round - member.segment_round >= program.segment_rounds
        or state.elapsed_s - member.segment_s >= program.segment_s
    )


def aligning(state: Replicated, rank: int) -> tuple[Command | Adopt, ...]:
    """Return the command that aligns local state, if one is due: on entering gradient mode, or for non-finite state."""
    alignment = state.alignment(rank)
    return () if alignment is None else (Align(*alignment),)


def _change(before: Replicated, state: Replicated) -> tuple[PeriodChange, ...]:
    """Return the change of the period in this round, or the result of the probe that ended with it."""
    probe = before.period.probe
    ended = probe is not None and not probe.steps
    if before.period.tau == state.period.tau and not ended:
        return ()
    return (PeriodChange(state.round, before.period.tau, state.period.tau, state.period.why),)


def _told(rows: tuple[RoundRow, ...], control: Control) -> tuple[RoundRow, ...]:
    """Add the bytes sent to the newest row: members report them with the round after it."""
    if not rows:
        return rows
    return (*rows[:-1], replace_fields(rows[-1], wire_bytes=control.wire_bytes))


def _row(member: Member, before: Replicated, state: Replicated, done: Exchanged) -> RoundRow:
    order = member.in_force
    return RoundRow.of(
        CommittedRound(
            before=before,
            after=state,
            control=done.control,
            view=order.view.number,
            incarnation=order.incarnation,
            scope=order.program.averaging.scope,
            rank=member.rank,
            exchange_s=done.exchange_s,
            overlapped=member.flight is not None,
        )
    )


def arrive(member: Member) -> Result:
    """Report to the controller at a boundary. Steps in flight and a probe's steps are not committed, so undo those."""
    mark("broke_in_flight", member.flight is not None)
    member, undo = probing.abandoned(member)
    member = replace_fields(member, flight=None, shown=None, **vars(member.uncommitted))
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
        stops=member.stop_asked,
        samples=member.dataset,
        shards=member.shards,
        split=member.reached.split if member.reached is not None else 0,
        rows_split=member.rows_split,
        epochs=member.epochs,
        epoch=member.epoch,
        rounds=member.rounds,
        evaluations=member.evaluations,
        changes=member.changes,
        copied=member.copied,
        damaged=member.damaged,
        broken=member.broken,
    )
    return replace_fields(member, rounds=(), evaluations=(), changes=(), rows_split=0), (*undo, Arrive(report))
