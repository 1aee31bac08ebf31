"""The beginning of an incarnation, with fresh state or from a checkpoint."""

from __future__ import annotations

from dataclasses import replace

from raysgd_local.algorithms.placement.table import Placement
from raysgd_local.control.controller import boundary, dealing, membership, orders
from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.controller.checkpoints import CheckpointRecord
from raysgd_local.control.controller.events import KillWorker, RewindTables
from raysgd_local.control.controller.state import Restoring, Segment, Turn
from raysgd_local.control.controller.transitions import Standing
from raysgd_local.control.data.deal import Deal
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.marks import mark
from raysgd_local.control.messages import CheckpointStart, FreshStart, View
from raysgd_local.control.replicated.endings import resumed
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.control.run_events import EventName


def first_view(turn: Turn) -> None:
    """Form the first view of an incarnation, with rank 0's fresh state or with a checkpoint's."""
    state = turn.state
    view = orders.next_view(state.segment, state.standing(Standing.READY)[: state.settings.workers_max])
    for timer in ("start", "gather"):
        turn.clear_timer(timer)
    turn.set(preparing=False)
    if state.resume is None:
        _begin_fresh(turn, view)
    else:
        _begin_from(turn, view, state.resume)


def _begin_fresh(turn: Turn, view: View) -> None:
    initial = Replicated(schedule=turn.state.settings.program.schedule.init())
    blocks = dealing.blocks_of(turn, view.members)
    if turn.state.segment is not None and turn.state.segment.books.replicated.evaluations:
        turn.do(RewindTables(0, 0))  # an evaluation before the first commit, by workers that are gone
    books = Books(boundary.seated(initial, None, view.members, None, blocks), Ledger())
    orders.first_order(turn, view, books, FreshStart(receivers=tuple(range(1, len(view.members)))))


def _begin_from(turn: Turn, view: View, snapshot: CheckpointRecord) -> None:
    """Go back to a checkpoint. Keep its deal for as many members; otherwise deal the rest of the epoch anew."""
    before = resumed(snapshot.replicated, turn.state.settings.program)
    snapshot = replace(snapshot, ledger=_read_again(snapshot.ledger, before))
    before = replace(before, splits=tuple(0 for _ in before.splits), blocks=dealing.blocks_of(turn, view.members))
    state, deal = _going_to(turn, view, before, snapshot.deal)
    books = Books(state, snapshot.ledger, deal, snapshot.found, _renamed(snapshot, view))
    turn.do(RewindTables(state.round, state.evaluations))
    turn.record(EventName.RESUMED, checkpoint=snapshot.name, round=state.round, epoch=state.epoch)
    if len(view.members) != len(snapshot.writers):
        dealing.record_residuals(turn, dict(zip(snapshot.members, state.residuals, strict=False)), ())
    lost = books.placement is not None and not all(books.placement.holders)
    if len(view.members) != len(snapshot.members) or lost:
        mark("resumed_by_another_number")
        books = dealing.dealt(turn, books, None, view, {})
    orders.first_order(turn, view, books, CheckpointStart(snapshot.name))


def _going_to(
    turn: Turn, view: View, state: Replicated, deal: Deal | StreamDeal | None
) -> tuple[Replicated, Deal | StreamDeal | None]:
    """Let rounds across epochs end with the loops' present total of epochs: it may be another than before."""
    total = max(turn.state.workers[worker].epochs for worker in view.members)
    if not state.epochs or not state.open or total in (0, state.epochs):
        return state, deal
    mark("resumed_with_another_total")
    state = replace(state, epochs=max(total, state.epoch + 1))
    return state, None if deal is None else replace(deal, epochs=state.epochs)


def _read_again(ledger: Ledger | StreamLedger, state: Replicated) -> Ledger | StreamLedger:
    """Count the rows of a stream that were split where the checkpoint's readers stood: they are read again."""
    if not isinstance(ledger, StreamLedger):
        return ledger
    return replace(ledger, rows_split=ledger.rows_split + sum(state.splits))


def _renamed(snapshot: CheckpointRecord, view: View) -> Placement | None:
    """Return the checkpoint's placement with each rank's former worker replaced by the new one."""
    if snapshot.placement is None:
        return None
    names = dict(zip(snapshot.members, view.members, strict=False))
    holders = tuple(tuple(names[w] for w in chunk if w in names) for chunk in snapshot.placement.holders)
    return replace(snapshot.placement, holders=holders)


def begin_again(turn: Turn, segment: Segment) -> None:
    """No member has the run's state any more: go back to the newest checkpoint; if there is none, end the run."""
    state = turn.state
    committed = segment.books.replicated.round > 0
    mark("state_lost_while_closing", state.outcome is not None)
    newest = state.saves.published[-1] if state.saves.published else None
    if newest is None and (committed or state.resume is not None):
        mark("model_lost")
        lacking = "there is no checkpoint yet" if state.resume is None else "no checkpoint can be loaded"
        turn.finish("lost", f"no worker has the model any more, and {lacking}")
        return
    mark("beginning_lost", not committed)
    mark("nobody_has_state", committed)
    for worker in state.members:
        turn.do(KillWorker(worker))
    turn.remove(state.members)
    turn.enter(Restoring(replace(segment, arrivals={})))
    turn.set(
        resume=newest,
        incarnation=state.incarnation + (segment.books.replicated.progress > (0, 0)),
        outcome=None,
        saves=state.saves.abandoned(),
    )
    for timer in ("finish", "save", "again"):
        turn.clear_timer(timer)
    turn.set_timer("start", state.settings.timeouts.start_s)
    membership.refill(turn)
