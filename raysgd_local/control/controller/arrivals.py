"""Boundaries: all members arrive, and their rounds are resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from raysgd_local.control.controller import (
    agreement,
    beginning,
    boundary,
    dealing,
    membership,
    orders,
    saving,
    streams,
    termination,
)
from raysgd_local.control.controller.boundary import Resolution
from raysgd_local.control.controller.events import RecordRounds
from raysgd_local.control.controller.state import Paused, Resolving, Restoring, Running, Segment, Starting, Turn
from raysgd_local.control.controller.transitions import Phase, Standing
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.marks import mark
from raysgd_local.control.messages import LoopPosition, Report
from raysgd_local.control.replicated.endings import stopped_between_epochs
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.control.run_events import EventName


def arrive(turn: Turn, report: Report) -> None:
    """Take the report of a worker at a boundary, or ready to enter. Ignore one of another view or segment."""
    state, segment = turn.state, turn.state.segment
    if report.worker not in state.workers:
        return
    if report.place is LoopPosition.START and report.view == 0:
        if state.workers[report.worker].standing is Standing.UP:
            turn.stand(report.worker, Standing.READY, epochs=report.epochs)
            if len(state.standing(Standing.MEMBER)) < state.settings.workers_max:  # else a spare
                membership.ask_yield(turn)
    elif segment is not None and (report.view, report.segment) == (segment.view.number, segment.number):
        _gather(turn, segment, report)


def _gather(turn: Turn, segment: Segment, report: Report) -> None:
    if segment.only_ended and turn.state.phase is Phase.RUNNING:
        turn.enter(Running(segment, gathering_since=turn.now))
    turn.update(replace(segment, arrivals={**segment.arrivals, report.worker: report}))
    if report.replicated is not None:
        membership.reached(turn, report.replicated.round)
    if report.moved_bytes:
        turn.record(EventName.CHUNKS_MOVED, worker=report.worker, bytes=report.moved_bytes)
    if report.leaving and turn.state.workers[report.worker].standing is Standing.MEMBER:
        membership.leaving(turn, report.worker, "SIGTERM")
    if report.broken:
        saving.parts_missing(turn, report.worker, "did not come to copy its part", since=report.copied)
        membership.break_view(turn, f"{report.worker}: {report.broken}")


def consider(turn: Turn) -> None:
    """Go on if all workers that the present phase waits for have arrived."""
    state = turn.state
    if state.errors:  # `errors_gathered` decides whether the run goes on
        return
    match state.stage:
        case Starting() | Restoring():
            _consider_start(turn)
        case Running(segment) | Resolving(segment):
            _consider_boundary(turn, segment)
        case Paused(segment, since):
            _consider_resuming(turn, segment, since)
        case _:
            pass


def _consider_start(turn: Turn) -> None:
    """Begin when all workers are ready; once `workers_min` are, wait `gather_s` for the others."""
    state = turn.state
    ready = len(state.standing(Standing.READY))
    if ready >= state.settings.workers_max:
        beginning.first_view(turn)
    elif ready >= state.settings.workers_min and "gather" not in state.timers:
        turn.set_timer("gather", state.settings.timeouts.gather_s)


def gather_expired(turn: Turn) -> None:
    """The `gather` timer expired: start with the workers that are ready, if at least `workers_min`."""
    state = turn.state
    ready = len(state.standing(Standing.READY))
    if state.phase in (Phase.STARTING, Phase.RESTORING) and ready >= state.settings.workers_min:
        beginning.first_view(turn)


def _consider_boundary(turn: Turn, segment: Segment) -> None:
    """Settle when all members have arrived. Once training is over, end with the last checkpoint, or try another."""
    state = turn.state
    if state.outcome is not None and state.saves.over:
        orders.dismiss(turn, segment, state.outcome)
        return
    waits = "again" in state.timers or (
        state.outcome is not None and (state.saves.ending or "save" in state.timers)
    )
    if not waits and _all_here(turn, segment):
        mark("last_checkpoint_retried", turn.state.outcome is not None)
        _settle(turn, segment)


def _all_here(turn: Turn, segment: Segment) -> bool:
    """Whether every live member has arrived. Runs at every event, so a `False` must be quick."""
    workers = turn.state.workers
    return all(w in segment.arrivals or w not in workers for w in reversed(segment.view.members))


def _settle(turn: Turn, segment: Segment) -> None:
    """All members have arrived: resolve their rounds, then end, pause or go on."""
    reports = turn.state.reports
    for report in reports:
        if report.damaged:
            saving.damaged(turn, report.damaged, report.broken)
    resolution = _resolution(segment, reports)
    if resolution is None or any(report.damaged for report in reports):
        beginning.begin_again(turn, segment)
        return
    segment = _enter(turn, segment, resolution)
    segment = _stopped(turn, segment, reports)
    segment = _told(turn, segment, reports)
    if reason := _changed(segment):
        turn.finish("failed", reason)
        return
    source, unmeasured = dealing.unmeasured(turn, segment, reports)
    if unmeasured and not orders.measure(turn, segment, source, unmeasured, reports):
        beginning.begin_again(turn, segment)
    if unmeasured:
        return
    if segment.books.replicated.at_odds:
        agreement.end(turn, dict(segment.books.replicated.at_odds))
        return
    if turn.state.outcome is not None:
        orders.last_order(turn, segment, resolution, turn.state.outcome, save=True)
        return
    ending = termination.reason_to_end(turn, segment.books, reports)
    if ending is not None:
        orders.last_order(turn, segment, resolution, ending.outcome, ending.save)
    elif orders.may_grow(segment.books, reports) and _hands(turn) < turn.state.settings.workers_min:
        _pause(turn, segment)
    else:
        mark("pause_put_off", _hands(turn) < turn.state.settings.workers_min)
        orders.next_order(turn, segment, resolution)


def _resolution(segment: Segment, reports: Sequence[Report]) -> Resolution | None:
    """Return None if no member has the run's state: all that had a resolved round died before others were healed."""
    resolved = segment.books.replicated.progress
    resolution = boundary.resolve(reports, resolved)
    mark("resolved_round_lost", resolution is not None and resolution.state.progress < resolved)
    return None if resolution is None or resolution.state.progress < resolved else resolution


def _enter(turn: Turn, segment: Segment, resolution: Resolution) -> Segment:
    """Write the resolved rounds into the tables and the resolved state into the books."""
    books = segment.books
    if resolution.state.progress == books.replicated.progress:
        return segment  # after a pause the same reports are settled once more
    segment = replace(segment, books=replace(books, replicated=resolution.state))
    turn.update(segment)
    mark("evaluation_without_round", not resolution.rounds and bool(resolution.evaluations))
    if resolution.rounds or resolution.evaluations:
        turn.do(RecordRounds(resolution.rounds, resolution.evaluations))
    _record_shares(turn, segment.view.members, books.replicated, resolution.state)
    _record_changes(turn, resolution)
    return segment


def _stopped(turn: Turn, segment: Segment, reports: Sequence[Report]) -> Segment:
    """End training here if all loops asked to, after an evaluation for example: the model stays what they judged."""
    books = segment.books
    if not boundary.stopped_by_all(reports, books.replicated):
        return segment
    mark("stopped_between_epochs")
    segment = replace(segment, books=replace(books, replicated=stopped_between_epochs(books.replicated)))
    turn.update(segment)
    return segment


def _told(turn: Turn, segment: Segment, reports: Sequence[Report]) -> Segment:
    """Enter lengths of shards that members have found out into the books."""
    deal = segment.books.deal
    found = streams.told(deal, segment.books.found, reports) if isinstance(deal, StreamDeal) else ()
    if found != segment.books.found:
        segment = replace(segment, books=replace(segment.books, found=found))
        turn.update(segment)
    return segment


def _changed(segment: Segment) -> str:
    """Say which shard of a stream has another length than before; empty if none has."""
    ledger, found = segment.books.ledger, segment.books.found
    return streams.changed(ledger, dict(found)) if isinstance(ledger, StreamLedger) else ""


def _record_changes(turn: Turn, resolution: Resolution) -> None:
    for change in resolution.changes:
        if change.before == change.after:
            turn.record(EventName.PROBED, round=change.round, found=change.why)
            continue
        fields = {"round": change.round, "from": change.before, "to": change.after, "why": change.why}
        turn.record(EventName.PERIOD_CHANGED, **fields)


def _record_shares(turn: Turn, members: Sequence[str], before: Replicated, after: Replicated) -> None:
    """Record changed shares of steps; release workers that are too slow to be balanced."""
    shares = dict(zip(members, after.pacing.shares, strict=False))
    if after.pacing.shares != (before.pacing.shares or tuple(1.0 for _ in after.pacing.shares)):
        rounded = {worker: round(share, 3) for worker, share in shares.items()}
        turn.record(EventName.STEPS_SHARED, round=after.round, shares=rounded)
    for worker, pace in zip(members, after.pacing.paces, strict=False):
        if pace.hopeless:
            membership.let_go(turn, worker, "too slow: its steps take many times as long as the others'")


def _hands(turn: Turn) -> int:
    """Return the number of workers that could go on. One that wants to leave counts as long as its process lives."""
    return len(turn.state.members) + len(turn.state.standing(Standing.READY))


def _pause(turn: Turn, segment: Segment) -> None:
    """Wait for more workers. The caller makes sure that no steps are pending: members finish their round first."""
    have, settings = _hands(turn), turn.state.settings
    turn.enter(Paused(segment, turn.now))
    turn.record(
        EventName.PAUSED, workers=have, workers_min=settings.workers_min, limit_s=settings.timeouts.pause_s
    )
    turn.set_timer("pause", settings.timeouts.pause_s)


def _consider_resuming(turn: Turn, segment: Segment, since: float) -> None:
    """End the pause once there are `workers_min` workers."""
    have = _hands(turn)
    if have < turn.state.settings.workers_min:
        return
    turn.clear_timer("pause")
    turn.enter(Running(segment))
    turn.set(paused_s=turn.now - since)
    turn.record(EventName.UNPAUSED, workers=have)
    _settle(turn, segment)
