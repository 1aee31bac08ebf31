"""Place chunks and deal data when a view begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from raysgd_local.algorithms.placement.table import ChunkHolder, Placement, default_chunks, rebalance
from raysgd_local.control.controller import boundary, streams
from raysgd_local.control.controller.boundary import Books, Pending, Resolution
from raysgd_local.control.controller.state import Segment, Turn
from raysgd_local.control.controller.transitions import Standing
from raysgd_local.control.data import chunk_transfer
from raysgd_local.control.data.deal import Sources
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.data.streams.shards import Shards
from raysgd_local.control.marks import mark
from raysgd_local.control.messages import Report, View
from raysgd_local.control.run_events import EventName


def account(turn: Turn, segment: Segment, resolution: Resolution, view: View) -> Books:
    """Enter consumed samples into the ledger, place and deal the data for `view`, and seat the state for it."""
    books, before = boundary.passed(segment.books), segment.view
    record_residuals(turn, dict(zip(before.members, books.replicated.residuals, strict=False)), view.members)
    reports = {report.worker: report for report in turn.state.reports}
    books = _split(books, sum(report.rows_split for report in reports.values()))
    opens = boundary.opening(tuple(reports.values()), books.replicated)
    if opens is not None:
        across = turn.state.settings.program.across_epochs
        epochs = max(report.epochs for report in reports.values()) if across else 0
        books = _opened(boundary.closed(books), opens, epochs)
    elif not books.replicated.open:
        books = boundary.closed(books)
    elif view == before and not books.replicated.needs_deal and not _hands_over(turn, books, view):
        return books
    pending = boundary.pending_positions(books, before, reports, resolution.behind)
    if opens is None and books.replicated.open:
        books = _split(books, streams.split(books.replicated, before, view, reports))
    loops = boundary.loops_of(reports.values(), books.replicated)
    return dealt(turn, books, before, view, pending, loops)


def record_residuals(turn: Turn, norms: Mapping[str, float], members: Sequence[str]) -> None:
    """Record the residuals of workers that are gone: that part of their steps will never be in the model."""
    lost = {worker: norm for worker, norm in norms.items() if norm and worker not in members}
    if lost:
        turn.record(EventName.RESIDUAL_LOST, workers=list(lost), norm=sum(lost.values()))


def _split(books: Books, rows: int) -> Books:
    """Count rows of a stream that will be read again though steps were taken on samples of them."""
    if not isinstance(books.ledger, StreamLedger):
        return books
    return replace(books, ledger=replace(books.ledger, rows_split=books.ledger.rows_split + rows))


def _opened(books: Books, opens: int | Shards, epochs: int) -> Books:
    epoch, ledger = books.replicated.epoch, books.ledger
    if isinstance(opens, Shards):
        ledger = streams.opened(ledger, epoch, opens)
    elif opens:
        ledger = streams.map_style(ledger).open_epoch(epoch, opens)
    return replace(books, ledger=ledger, replicated=replace(books.replicated, open=True, epochs=epochs))


def dealt(
    turn: Turn,
    books: Books,
    before: View | None,
    view: View,
    pending: Pending,
    loops: Mapping[str, int] | None = None,
) -> Books:
    """Deal the open epoch to the view's members, if it deals any data at all, and seat the state for them."""
    settings, state = turn.state.settings, books.replicated
    if state.open and books.ledger.epoch == state.epoch:
        shares = boundary.deal_shares(state, before, view.members, settings.program)
        books = _dealt(turn, boundary.closed(books), before, view, pending, shares)
    seated = boundary.seated(state, before, view.members, books.deal, blocks_of(turn, view.members), loops)
    return replace(books, replicated=seated)


def _dealt(
    turn: Turn, books: Books, before: View | None, view: View, pending: Any, shares: Mapping[str, float]
) -> Books:
    settings, ledger = turn.state.settings, books.ledger
    left = boundary.skips_of(books.replicated, before, view.members)
    if isinstance(ledger, StreamLedger):
        rows = [pending.get(worker, {}) for worker in view.members]
        parts, epochs = [shares[worker] for worker in view.members], books.replicated.epochs
        ledger, deal = streams.dealt(ledger, parts, rows, settings, epochs, left)
        return replace(books, ledger=ledger, deal=deal)
    placement = _placed(turn, books, ledger.samples, view)
    seed, local = settings.seed, settings.local_data
    return boundary.deal_for(books, ledger, placement, view.members, pending, seed, local, shares, left)


def blocks_of(turn: Turn, members: Sequence[str]) -> tuple[int, ...]:
    """Return for each rank the number of its block; empty if the averaging has no blocks."""
    program, workers = turn.state.settings.program, turn.state.workers
    return program.averaging.blocks(tuple(workers[w].node for w in members)) if program.partial else ()


def _placed(turn: Turn, books: Books, samples: int, view: View) -> Placement:
    """Place the chunks on the view's members; record those that no live worker holds any more."""
    settings = turn.state.settings
    placement = books.placement
    if placement is None:
        chunks = settings.placement.chunks
        placement = Placement.empty(min(chunks or default_chunks(settings.workers_max, samples), samples))
    live = _holders(turn, view)
    copies = settings.placement.copies_among(len(live))
    have = sources(turn, view, placement.chunks)
    if have:
        after = chunk_transfer.placed(placement, have, live, copies)
        held = [bool(workers) for workers in after.holders]
    else:
        after = rebalance(placement, live, copies)
        held = [any(worker in turn.state.workers for worker in chunk) for chunk in placement.holders]
    known = [bool(chunk) for chunk in placement.holders]  # chunks that were lost earlier are recorded already
    lost = sum(before and not now for before, now in zip(known, held, strict=True))
    if lost:
        mark("chunk_nobody_has")
        turn.record(EventName.CHUNKS_UNCOVERED, chunks=held.count(False))
    return after


def _holders(turn: Turn, view: View) -> list[ChunkHolder]:
    """Return the workers that may hold chunks. If data has to be moved, exclude those that leave, unless all do."""
    workers = turn.state.workers
    members = [w for w in view.members if not _leaves(turn, w)] if turn.state.settings.local_data else []
    return [ChunkHolder(worker, workers[worker].node) for worker in members or view.members]


def _leaves(turn: Turn, worker: str) -> bool:
    return turn.state.workers[worker].standing is Standing.LEAVING


def _hands_over(turn: Turn, books: Books, view: View) -> bool:
    """Whether the placement still assigns chunks to a leaving worker while another could hold them."""
    if not turn.state.settings.local_data or books.placement is None:
        return False
    leaving = {worker for worker in view.members if _leaves(turn, worker)}
    return len(leaving) < len(view.members) and any(leaving & set(chunk) for chunk in books.placement.holders)


def have(turn: Turn, members: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return for each of these members the chunks whose data it reported to have."""
    chunks = {report.worker: report.chunks for report in turn.state.reports}
    return {worker: chunks[worker] for worker in members if worker in chunks}


def unmeasured(turn: Turn, segment: Segment, reports: Sequence[Report]) -> tuple[str, dict[int, int]]:
    """Return a stream's names, and its shards that must be measured at this boundary (see `consumption.needed`)."""
    books = segment.books
    if isinstance(books.deal, StreamDeal) and isinstance(books.ledger, StreamLedger):
        needed = books.ledger.lengths_needed(books.deal, books.replicated.cursors, dict(books.found))
        if needed:
            return books.deal.names, needed
    opens = boundary.opening(reports, books.replicated)
    if not isinstance(opens, Shards):
        return "", {}
    ledger = _opened(boundary.closed(books), opens, 0).ledger
    workers = len(reports) + len(turn.state.standing(Standing.READY))
    return opens.names, streams.unfair(ledger, workers) if isinstance(ledger, StreamLedger) else {}


def sources(turn: Turn, view: View, chunks: int) -> Sources:
    """Return for each chunk the members that have its data; empty if all can read all, or no member has any yet."""
    if not turn.state.settings.local_data:
        return ()
    return chunk_transfer.sources(have(turn, view.members), chunks)
