"""Boundaries: all members arrive, and what they did is resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from raysgd_local.control.controller import boundary, membership, orders, termination
from raysgd_local.control.controller.boundary import Resolution
from raysgd_local.control.controller.events import RecordRounds
from raysgd_local.control.controller.state import Phase, Standing, Turn
from raysgd_local.control.marks import mark
from raysgd_local.control.messages import LoopPosition, Report
from raysgd_local.control.replicated.state import Replicated


def arrive(turn: Turn, report: Report) -> None:
    """Somebody is at a boundary, or ready to enter; what belongs to another view has no effect."""
    state = turn.state
    if report.worker not in state.workers:
        return
    if report.place is LoopPosition.START and report.view == 0:
        if state.workers[report.worker].standing is Standing.UP:
            turn.worker(report.worker, standing=Standing.READY)
            if len(state.standing(Standing.MEMBER)) < state.settings.workers_max:  # else it is a spare
                membership.ask_yield(turn)
    elif state.view is not None and report.view == state.view.number and report.segment == state.segment:
        _gather(turn, report)


def _gather(turn: Turn, report: Report) -> None:
    if not turn.state.arrivals and turn.state.phase is Phase.RUNNING:
        turn.set(arriving_since=turn.now)
    turn.set(arrivals={**turn.state.arrivals, report.worker: report})
    if report.moved_bytes:
        turn.record("chunks_moved", worker=report.worker, bytes=report.moved_bytes)
    if report.leaving and turn.state.workers[report.worker].standing is Standing.MEMBER:
        membership.leaving(turn, report.worker, "SIGTERM")
    if report.broken:
        termination.parts_missing(turn, report.worker, "did not come to copy its part", since=report.copied)
        membership.break_view(turn, f"{report.worker}: {report.broken}")


def consider(turn: Turn) -> None:
    """Go on if everything that is waited for is there."""
    state = turn.state
    if state.errors:  # whether the run goes on is known when they are gathered
        return
    match state.phase:
        case Phase.STARTING | Phase.RESTORING:
            _consider_start(turn)
        case Phase.RUNNING | Phase.RESOLVING if state.outcome is not None:
            _consider_closing(turn)
        case Phase.RUNNING | Phase.RESOLVING if _all_here(turn):
            _settle(turn)
        case Phase.PAUSED:
            _consider_resuming(turn)
        case _:
            pass


def _consider_closing(turn: Turn) -> None:
    """The run ends when its last checkpoint stands; one that can't be had is tried again."""
    state = turn.state
    if state.saves.over:
        orders.dismiss(turn)
    elif not state.saves.ending and "save" not in state.timers and _all_here(turn):
        mark("last_checkpoint_retried")
        _settle(turn)


def _all_here(turn: Turn) -> bool:
    """Whether every member that is alive has arrived; quick where not, for this is asked at every event."""
    state = turn.state
    members = state.view.members if state.view else ()
    return all(w in state.arrivals or w not in state.workers for w in reversed(members))


def gathered(turn: Turn) -> None:
    """The wait for more than the fewest workers is over."""
    state = turn.state
    ready = len(state.standing(Standing.READY))
    if state.phase in (Phase.STARTING, Phase.RESTORING) and ready >= state.settings.workers_min:
        orders.first_view(turn)


def _consider_start(turn: Turn) -> None:
    """Begin when all are ready, or, some time after the fewest are, with those that are."""
    state = turn.state
    ready = len(state.standing(Standing.READY))
    if ready >= state.settings.workers_max:
        orders.first_view(turn)
    elif ready >= state.settings.workers_min and "gather" not in state.timers:
        turn.set_timer("gather", state.settings.timeouts.gather_s)


def _settle(turn: Turn) -> None:
    """All are here: what they did is resolved, then the run ends, pauses or goes on."""
    state = turn.state
    reports = tuple(state.arrivals[w] for w in state.members)
    for report in reports:
        if report.damaged:
            termination.damaged(turn, report.damaged, report.broken)
    resolution = _resolution(turn, reports)
    if resolution is None or any(report.damaged for report in reports):
        orders.begin_again(turn)
        return
    _enter(turn, resolution)
    if turn.state.outcome is not None:
        orders.last_order(turn, resolution, *turn.state.outcome, save=True)
        return
    ends = termination.reason_to_end(turn, reports)
    if ends is not None:
        orders.last_order(turn, resolution, *ends)
    elif _too_few(turn, reports):
        _pause(turn)
    else:
        orders.next_order(turn, resolution)


def _resolution(turn: Turn, reports: Sequence[Report]) -> Resolution | None:
    """None where nobody has the run's state any more: a resolved round's holders died before others were healed."""
    books = turn.state.books
    resolved = books.replicated.progress if books is not None else (0, 0)
    resolution = boundary.resolve(reports, resolved)
    if resolution is None or resolution.state.progress < resolved:
        mark("resolved_round_lost", resolution is not None)
        return None
    return resolution


def _enter(turn: Turn, resolution: Resolution) -> None:
    """The resolved rounds go into the tables; the reduced state is the run's."""
    books = turn.state.books
    if books is None:
        raise RuntimeError("a view has books")
    if resolution.state.progress == books.replicated.progress:
        return  # after a pause the same arrivals are settled once more
    turn.set(books=replace(books, replicated=resolution.state))
    mark("evaluation_without_round", not resolution.rounds and bool(resolution.evaluations))
    if resolution.rounds or resolution.evaluations:
        turn.do(RecordRounds(resolution.rounds, resolution.evaluations))
    _tell_shares(turn, books.replicated, resolution.state)
    for change in resolution.changes:
        if change.before == change.after:
            turn.record("probed", round=change.round, found=change.why)
            continue
        fields = {"round": change.round, "from": change.before, "to": change.after, "why": change.why}
        turn.record("period_changed", **fields)


def _tell_shares(turn: Turn, before: Replicated, after: Replicated) -> None:
    """Workers of unequal speed share steps anew; the hopeless are let go with this boundary."""
    members = turn.state.view.members if turn.state.view else ()
    shares = dict(zip(members, after.pacing.shares, strict=False))
    if after.pacing.shares != (before.pacing.shares or tuple(1.0 for _ in after.pacing.shares)):
        turn.record(
            "steps_shared", round=after.round, shares={worker: round(share, 3) for worker, share in shares.items()}
        )
    for worker, pace in zip(members, after.pacing.paces, strict=False):
        if pace.hopeless:
            membership.let_go(turn, worker, "too slow: its steps take many times as long as the others'")


def _too_few(turn: Turn, reports: Sequence[Report]) -> bool:
    """Too few to go on, even with those that wait. Steps that nobody committed are brought to their round's end."""
    state = turn.state
    if not orders.may_grow(turn, reports):
        mark("pause_put_off", _hands(turn) < state.settings.workers_min)
        return False
    return _hands(turn) < state.settings.workers_min


def _hands(turn: Turn) -> int:
    """Who could go on; who wants to leave can as long as it is there."""
    return len(turn.state.members) + len(turn.state.standing(Standing.READY))


def _pause(turn: Turn) -> None:
    state = turn.state
    have, need = _hands(turn), state.settings.workers_min
    turn.set(phase=Phase.PAUSED, paused_since=turn.now)
    turn.record("paused", workers=have, workers_min=need, limit_s=state.settings.timeouts.pause_s)
    turn.set_timer("pause", state.settings.timeouts.pause_s)


def _consider_resuming(turn: Turn) -> None:
    state = turn.state
    have = _hands(turn)
    if have < state.settings.workers_min or state.paused_since is None:
        return
    turn.clear_timer("pause")
    turn.set(phase=Phase.RUNNING, paused_since=None, paused_s=turn.now - state.paused_since)
    turn.record("unpaused", workers=have)
    _settle(turn)
