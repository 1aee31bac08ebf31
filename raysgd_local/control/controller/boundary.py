"""At a boundary: resolve the members' reports into one state, and deal the rest of the open epoch. All pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysgd_local.algorithms.placement.table import Placement
from raysgd_local.control.controller import streams
from raysgd_local.control.data.deal import Deal, later_lengths, lengths, next_entries, pack, unpack
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.data.streams.lengths import Lengths
from raysgd_local.control.data.streams.parts import PART, begins, unsure
from raysgd_local.control.data.streams.ranges import Ranges
from raysgd_local.control.data.streams.shards import Shards
from raysgd_local.control.data.streams.spans import empty_lists
from raysgd_local.control.marks import mark
from raysgd_local.control.messages import LoopPosition, Report, View
from raysgd_local.control.replicated import balancing
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.control.replicated.state import ENDLESS, Replicated
from raysgd_local.records import EvalRow, PeriodChange

_PACED = ("parameters", "partial")
"""Modes in which members may take unequal numbers of steps in a round."""


Pending = Mapping[str, tuple[int, ...]] | Mapping[str, Mapping[int, Ranges]]
"""By worker: entries of its list, or by epoch rows of a stream, of its uncommitted steps."""


@dataclass(frozen=True)
class Books:
    """The run's resolved state, and the samples in it."""

    replicated: Replicated
    ledger: Ledger | StreamLedger
    deal: Deal | StreamDeal | None = None  # of the open epoch
    found: Lengths = ()  # of shards, since the deal was made: lengths that the ledger does not know, and bounds
    placement: Placement | None = None  # None until data was dealt for the first time


@dataclass(frozen=True)
class Resolution:
    """The result of resolving the reports of a view's members."""

    state: Replicated  # of the member that got furthest; `wire_bytes` includes the newest round's
    newest: tuple[str, ...]  # members that committed the newest round
    behind: tuple[str, ...]  # members that missed it: one of `newest` heals them
    empty: tuple[str, ...]  # members without state
    rounds: tuple[RoundRow, ...]  # resolved since the last boundary
    evaluations: tuple[EvalRow, ...]  # since the last boundary
    changes: tuple[PeriodChange, ...]  # since the last boundary


def resolve(reports: Sequence[Report], after: tuple[int, int]) -> Resolution | None:
    """Resolve the highest round that any reporting member committed; None if no member has state.

    `after` is the (round, evaluations) resolved before. A member is at most one round behind.
    """
    holders = [(report, report.replicated) for report in reports if report.replicated is not None]
    if not holders:
        return None
    lead, state = max(holders, key=lambda holder: holder[1].progress)  # the first of those in rank order
    rounds = _complete(tuple(row for row in lead.rounds if row.round > after[0]), reports)
    newest_bytes = rounds[-1].wire_bytes if rounds else 0
    return Resolution(
        state=replace(state, wire_bytes=state.wire_bytes + newest_bytes),
        newest=tuple(report.worker for report, own in holders if own.round == state.round),
        behind=tuple(report.worker for report, own in holders if own.round < state.round),
        empty=tuple(report.worker for report in reports if report.replicated is None),
        rounds=rounds,
        evaluations=lead.evaluations[-new:] if (new := state.evaluations - after[1]) > 0 else (),
        changes=tuple(change for change in lead.changes if change.round > after[0]),
    )


def _complete(rows: tuple[RoundRow, ...], reports: Sequence[Report]) -> tuple[RoundRow, ...]:
    """Fill in the bytes sent in the newest round. Only reports have them, because no round followed."""
    if not rows:
        return rows
    return (*rows[:-1], replace(rows[-1], wire_bytes=sum(report.wire_bytes for report in reports)))


def level(reports: Sequence[Report]) -> bool:
    """Whether every member with state has the newest round and no pending steps."""
    rounds = {report.replicated.round for report in reports if report.replicated is not None}
    return len(rounds) <= 1 and drained(reports)


def drained(reports: Sequence[Report]) -> bool:
    """Whether no member has steps pending, and all have the model."""
    return not any(report.steps for report in reports) and settled(reports)


def settled(reports: Sequence[Report]) -> bool:
    """Whether the newest averaging was over all members. Otherwise no member has the model until the next such one."""
    return all(report.replicated is None or report.replicated.settled for report in reports)


def pending_positions(books: Books, view: View, reports: Mapping[str, Report], behind: Sequence[str]) -> Pending:
    """Return for each worker the positions of its uncommitted steps. A healed worker drops its steps, so has none."""
    found: dict[str, tuple[int, ...]] = {}
    deal, state = books.deal, books.replicated
    if deal is None:
        return found
    if isinstance(deal, StreamDeal):
        return streams.pending_rows(deal, books.ledger, books.found, view, state, reports, behind)
    passed = (state.epoch - deal.epoch) * deal.samples if deal.epochs else 0
    for worker, report in reports.items():
        if report.taken and worker not in behind and worker in view.members:
            rank = view.rank(worker)
            entries = next_entries(deal, rank, state.cursors[rank], report.taken)
            found[worker] = tuple(entry - passed for entry in entries)
    return found


def passed(books: Books) -> Books:
    """Close the epochs that all members have passed in the midst of their lists. The deal goes on."""
    state, ledger, deal = books.replicated, books.ledger, books.deal
    if not state.epochs:
        return books
    open_one = state.epoch if state.open else state.epoch - 1
    if isinstance(ledger, StreamLedger) and isinstance(deal, StreamDeal):
        return replace(books, ledger=ledger.pass_to(open_one, deal, state.cursors, dict(books.found)))
    if isinstance(ledger, Ledger) and isinstance(deal, Deal):
        return replace(books, ledger=ledger.pass_to(open_one, deal, state.cursors))
    return books


def closed(books: Books) -> Books:
    """Enter every list of the deal up to its cursor into the ledger; close the epoch if it is over."""
    if books.deal is None:
        return books
    state, ledger, deal = books.replicated, passed(books).ledger, books.deal
    match ledger, deal:
        case StreamLedger(), StreamDeal():
            end = ledger.close if state.open else ledger.close_epoch
            return replace(books, ledger=end(deal, state.cursors, dict(books.found)), deal=None, found=())
        case Ledger(), Deal():
            enter = ledger.close if state.open else ledger.close_epoch
            return replace(books, ledger=enter(deal, state.cursors), deal=None)
        case _:
            raise RuntimeError("the deal is not of the ledger's kind")


def opening(reports: Sequence[Report], state: Replicated) -> int | Shards | None:
    """Return the training set's size, or a stream's shards, if all members wait for the next epoch's deal.

    Otherwise return None.

    A member whose loop has ended before the others' waits for nothing: it leaves the epoch at once, to the others.
    """
    waiting = [report for report in reports if report.place is LoopPosition.OPENING]
    ended = sum(report.place is LoopPosition.FINISHED for report in reports)
    if state.open or state.stopped or not waiting or len(waiting) + ended < len(reports):
        return None
    mark("loop_ended_before_others", ended > 0)
    shards = [report.shards for report in waiting if report.shards is not None]
    return shards[0] if shards else max(report.samples for report in waiting)


def stopped_by_all(reports: Sequence[Report], state: Replicated) -> bool:
    """Whether all loops asked to end training between two epochs, so that it ends without another round.

    Where only some asked, the others' loops don't know yet: they train one more round, and all end after it.
    """
    return not state.open and not state.stopped and all(report.stops for report in reports)


def deal_for(
    books: Books,
    ledger: Ledger,
    placement: Placement,
    members: Sequence[str],
    pending: Mapping[str, tuple[int, ...]],
    seed: int,
    local_data: bool,
    shares: Mapping[str, float],
    left: tuple[int, ...] = (),
) -> Books:
    """Deal the rest of the open epoch to `members`, by their `shares`; and the later epochs, if rounds go across.

    `left`: for each rank the first epoch of which it takes samples.
    """
    rank = {worker: index for index, worker in enumerate(members)}
    own = tuple(pending.get(worker, ()) for worker in members)  # steps of workers that leave are lost
    deal = Deal(
        number=ledger.next_deal_number,
        epoch=books.replicated.epoch,
        seed=seed,
        samples=ledger.samples,
        chunks=len(placement.holders),
        consumed=ledger.consumed,
        holders=tuple(tuple(sorted(rank[w] for w in h if w in rank)) for h in placement.holders),
        shares=tuple(shares[worker] for worker in members),
        pending=own,
        local_data=local_data,
        epochs=books.replicated.epochs,
        ahead=_taken_ahead(ledger, own) if books.replicated.epochs else (),
        left=left,
    )
    return replace(books, ledger=ledger.dealt(), deal=deal, placement=placement)


def _taken_ahead(ledger: Ledger, pending: Sequence[tuple[int, ...]]) -> tuple[bytes, ...]:
    """Return the bitmaps of the samples of later epochs that are consumed or pending."""
    bitmaps = [unpack(bitmap, ledger.samples).copy() for bitmap in ledger.ahead]
    for entry in (entry for entries in pending for entry in entries if entry >= ledger.samples):
        index, position = divmod(entry, ledger.samples)
        while len(bitmaps) < index:
            bitmaps.append(np.zeros(ledger.samples, dtype=bool))
        bitmaps[index - 1][position] = True
    return tuple(pack(bitmap) for bitmap in bitmaps)


def deal_shares(
    state: Replicated, view: View | None, members: Sequence[str], program: Program
) -> dict[str, float]:
    """Return each member's share of a deal: its samples in a round, relative to others'; 0 if it left the epoch,
    and its list ends with that.
    """
    before = () if view is None else view.members
    left = dict(zip(before, state.left_epoch, strict=False))
    parts = state.pacing.parts(state.period.tau) if state.period.mode in _PACED else ()
    paces = dict(zip(before, parts, strict=False))
    return {
        worker: 0.0 if left.get(worker) and not state.epochs else paces.get(worker, 1.0) * program.scale_of(rank)
        for rank, worker in enumerate(members)
    }


def skips_of(state: Replicated, view: View | None, members: Sequence[str]) -> tuple[int, ...]:
    """Return for each of `members` the first epoch of which it takes samples; empty where rounds end with epochs."""
    skips = dict(zip(() if view is None else view.members, state.skips, strict=False))
    return tuple(skips.get(worker, 0) for worker in members) if state.epochs else ()


def loops_of(reports: Iterable[Report], state: Replicated) -> dict[str, int]:
    """Return by worker the epoch with which a joiner begins to keep step with its loop.

    A loop that evaluates is between two epochs: a joiner evaluates too, so it begins with the former. But an evaluation
    that other members completed is not repeated.
    """
    found: dict[str, int] = {}
    for report in reports:
        if report.replicated is not None:
            repeats = report.replicated.evaluations >= state.evaluations
            waits = report.place is LoopPosition.EVALUATING and repeats and report.epoch > 0
            found[report.worker] = report.epoch - waits
    return found


def _left_by(state: Replicated, view: View | None, members: Sequence[str]) -> tuple[bool, ...]:
    left = dict(zip(() if view is None else view.members, state.left_epoch, strict=False))
    return tuple(state.open and left.get(worker, False) for worker in members)


def list_lengths(deal: Deal | StreamDeal | None) -> tuple[int, ...] | None:
    """Return the length of each rank's list, or of its first part; None without a deal.

    That of a stream's list is known when it was read, and each of its parts has equally many positions.
    """
    if isinstance(deal, StreamDeal) and deal.epochs:
        return tuple(PART for _ in deal.shares)
    if isinstance(deal, StreamDeal):
        return tuple(0 if empty else ENDLESS for empty in empty_lists(deal))
    return None if deal is None else lengths(deal)


def _later_lengths(deal: Deal | StreamDeal | None) -> tuple[tuple[int, ...], ...]:
    if isinstance(deal, StreamDeal):
        return (tuple(PART for _ in deal.shares),) if deal.epochs else ()
    return () if deal is None else later_lengths(deal)


def seated(
    state: Replicated,
    view: View | None,
    members: Sequence[str],
    deal: Deal | StreamDeal | None,
    blocks: tuple[int, ...] = (),
    loops: Mapping[str, int] | None = None,
) -> Replicated:
    """Return the replicated state for `members` at the start of `deal`: per-rank fields follow the workers.

    `loops`: the epochs in which workers' loops are, where rounds go across epochs. A joiner's begins with the earliest.
    """
    loops = loops or {}
    first = min(loops.values(), default=min(state.loops, default=state.epoch))
    before = () if view is None else view.members
    owed = dict(zip(before, state.owed, strict=False))
    sick = dict(zip(before, state.sick, strict=False))
    residuals = dict(zip(before, state.residuals, strict=False))
    return replace(
        state,
        cursors=begins(deal) if isinstance(deal, StreamDeal) else tuple(0 for _ in members),
        lengths=list_lengths(deal),
        splits=tuple(0 for _ in members) if isinstance(deal, StreamDeal) else (),
        later=_later_lengths(deal),
        loops=tuple(loops.get(worker, first) for worker in members) if state.epochs else (),
        redeal=False,
        unsure=isinstance(deal, StreamDeal) and unsure(deal),
        left_epoch=_left_by(state, view, members),
        skips=skips_of(state, view, members),
        sick=tuple(sick.get(worker, any(state.sick)) for worker in members),
        residuals=tuple(residuals.get(worker, 0.0) for worker in members),
        owed=tuple(owed.get(worker, 0.0) for worker in members) if state.owed else (),
        meet=state.meet or (not state.settled and view is not None and before != tuple(members)),
        blocks=blocks,
        pacing=balancing.seated(state.pacing, before, tuple(members)),
    )
