"""Where chunks lie, and what is dealt of them, when a view begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from raysgd_local.algorithms.placement.table import ChunkHolder, Placement, default_chunks, rebalance
from raysgd_local.control.controller import boundary
from raysgd_local.control.controller.boundary import Books, Resolution
from raysgd_local.control.controller.state import Standing, Turn
from raysgd_local.control.data import chunk_transfer
from raysgd_local.control.data.deal import Sources
from raysgd_local.control.messages import View


def account(turn: Turn, resolution: Resolution, view: View) -> None:
    """Enter what was consumed, place and deal the data for `view`, and seat the state for it."""
    state = turn.state
    books, before = state.books, state.view
    if books is None or before is None:
        raise RuntimeError("a boundary has books and a view")
    tell_residuals(turn, dict(zip(before.members, books.replicated.residuals, strict=False)), view.members)
    reports = {worker: state.arrivals[worker] for worker in state.members}
    opens = boundary.opening(tuple(reports.values()), books.replicated)
    if opens is not None:
        books = _opened(boundary.closed(books), opens)
    elif not books.replicated.open:
        books = boundary.closed(books)
    elif view == before and not books.replicated.needs_deal and not _hands_over(turn, view):
        return
    pending = boundary.pending_positions(books.deal, before, books.replicated, reports, resolution.behind)
    turn.set(books=dealt(turn, books, before, view, pending))


def tell_residuals(turn: Turn, norms: Mapping[str, float], members: Sequence[str]) -> None:
    """What compression left out of the messages of who is gone will never be in the model: that is told."""
    lost = {worker: norm for worker, norm in norms.items() if norm and worker not in members}
    if lost:
        turn.record("residual_lost", workers=list(lost), norm=sum(lost.values()))


def _opened(books: Books, samples: int) -> Books:
    ledger = books.ledger.open_epoch(books.replicated.epoch, samples) if samples else books.ledger
    return replace(books, ledger=ledger, replicated=replace(books.replicated, open=True))


def dealt(turn: Turn, books: Books, before: View | None, view: View, pending: dict[str, tuple[int, ...]]) -> Books:
    """The books with the open epoch dealt to the view's members, if it deals any data at all."""
    settings, state = turn.state.settings, books.replicated
    if state.open and books.ledger.epoch == state.epoch:
        shares = boundary.deal_shares(state, before, view.members, settings.program)
        books = replace(boundary.closed(books), placement=_placed(turn, books, view))
        books = boundary.deal_for(books, view.members, pending, settings.seed, settings.restricted, shares)
    seated = boundary.seated(state, before, view.members, books.deal, blocks_of(turn, view.members))
    return replace(books, replicated=seated)


def blocks_of(turn: Turn, members: Sequence[str]) -> tuple[int, ...]:
    """By rank the number of its block, where the averaging has any."""
    program, workers = turn.state.settings.program, turn.state.workers
    return program.averaging.blocks(tuple(workers[w].node for w in members)) if program.partial else ()


def _placed(turn: Turn, books: Books, view: View) -> Placement:
    settings = turn.state.settings
    placement = books.placement
    if placement is None:
        samples, chunks = books.ledger.samples, settings.placement.chunks
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
    known = [bool(chunk) for chunk in placement.holders]  # what was lost before has been told
    lost = sum(before and not now for before, now in zip(known, held, strict=True))
    if lost:
        turn.record("chunks_uncovered", chunks=held.count(False))
    return after


def _holders(turn: Turn, view: View) -> list[ChunkHolder]:
    """Who may hold chunks: where a chunk's data has to be moved, nobody who leaves gets or keeps any."""
    workers = turn.state.workers
    members = [w for w in view.members if not _leaves(turn, w)] if turn.state.settings.restricted else []
    return [ChunkHolder(worker, workers[worker].node) for worker in members or view.members]


def _leaves(turn: Turn, worker: str) -> bool:
    return turn.state.workers[worker].standing is Standing.LEAVING


def _hands_over(turn: Turn, view: View) -> bool:
    """Whether somebody who leaves is still meant to hold chunks while others could."""
    books = turn.state.books
    if not turn.state.settings.restricted or books is None or books.placement is None:
        return False
    leaving = {worker for worker in view.members if _leaves(turn, worker)}
    return len(leaving) < len(view.members) and any(leaving & set(chunk) for chunk in books.placement.holders)


def have(turn: Turn, members: Sequence[str]) -> dict[str, tuple[int, ...]]:
    arrivals = turn.state.arrivals
    return {worker: arrivals[worker].chunks for worker in members if worker in arrivals}


def sources(turn: Turn, view: View, chunks: int) -> Sources:
    """Who in the view has which chunk's data; nothing where all can read all, or nobody has any yet."""
    if not turn.state.settings.restricted:
        return ()
    return chunk_transfer.sources(have(turn, view.members), chunks)
