"""At a boundary: what is resolved, whose state is behind, how the open epoch is dealt from here on. All pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from raysgd_local.algorithms.placement.table import Placement
from raysgd_local.control.data.deal import Deal, lengths, lists
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.messages import LoopPosition, Report, View
from raysgd_local.control.replicated import balancing
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.records import EvalRow, PeriodChange

_PACED = ("parameters", "partial")
"""Modes in which members may take unequal numbers of steps."""


@dataclass(frozen=True)
class Books:
    """The run's resolved state: what members agreed on, and which data it stands for."""

    replicated: Replicated
    ledger: Ledger
    deal: Deal | None = None
    placement: Placement | None = None


@dataclass(frozen=True)
class Resolution:
    """What the arrivals of a view's members settle.

    `lead` is one of those that got furthest; `newest` are all that committed its last round, `behind` missed it
    and are healed by one of those. `empty` have no state. `pending` are per member the positions in steps that
    nobody committed: they stay its own.
    """

    lead: Report
    newest: tuple[str, ...]
    behind: tuple[str, ...]
    empty: tuple[str, ...]
    rounds: tuple[RoundRow, ...]
    evaluations: tuple[EvalRow, ...]
    changes: tuple[PeriodChange, ...]

    @property
    def state(self) -> Replicated:
        """The resolved state; the total of what was sent has what no round could tell."""
        if self.lead.replicated is None:
            raise RuntimeError("the lead has state by construction")
        told = self.rounds[-1].wire_bytes if self.rounds else 0
        return replace(self.lead.replicated, wire_bytes=self.lead.replicated.wire_bytes + told)


def resolve(reports: Sequence[Report], after: tuple[int, int]) -> Resolution | None:
    """The highest round that anyone who arrived committed holds for all; None if nobody has state.

    `after` is the (round, evaluations) resolved before. A member can be one round behind, never more.
    """
    holders = [report for report in reports if report.replicated is not None]
    if not holders:
        return None
    lead = max(holders, key=lambda report: _progress(report))  # the first of those in rank order
    top = _progress(lead)
    return Resolution(
        lead=lead,
        newest=tuple(r.worker for r in holders if _progress(r)[0] == top[0]),
        behind=tuple(r.worker for r in holders if _progress(r)[0] < top[0]),
        empty=tuple(r.worker for r in reports if r.replicated is None),
        rounds=_complete(tuple(row for row in lead.rounds if row.round > after[0]), reports),
        evaluations=lead.evaluations[-new:] if (new := top[1] - after[1]) > 0 else (),
        changes=tuple(change for change in lead.changes if change.round > after[0]),
    )


def _complete(rows: tuple[RoundRow, ...], reports: Sequence[Report]) -> tuple[RoundRow, ...]:
    """What the newest round sent is in the reports: nobody could tell it in a round after."""
    if not rows:
        return rows
    return (*rows[:-1], replace(rows[-1], wire_bytes=sum(report.wire_bytes for report in reports)))


def _progress(report: Report) -> tuple[int, int]:
    return report.replicated.progress if report.replicated is not None else (-1, -1)


def level(reports: Sequence[Report]) -> bool:
    """Whether all who have state equal the anchor: no steps pending, nobody a round behind."""
    rounds = {report.replicated.round for report in reports if report.replicated is not None}
    return len(rounds) <= 1 and drained(reports)


def drained(reports: Sequence[Report]) -> bool:
    """Whether no one has steps pending, and all have the model."""
    return not any(report.steps for report in reports) and settled(reports)


def settled(reports: Sequence[Report]) -> bool:
    """Whether the newest averaging was over all members: otherwise nobody has the model until the next that is."""
    return all(report.replicated is None or report.replicated.settled for report in reports)


def pending_positions(
    deal: Deal | None, view: View, state: Replicated, reports: Mapping[str, Report], behind: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Per worker the positions of steps that it took and nobody committed (none for who is healed)."""
    found: dict[str, tuple[int, ...]] = {}
    if deal is None:
        return found
    for worker, report in reports.items():
        if report.taken and worker not in behind and worker in view.members:
            rank = view.rank(worker)
            start = state.cursors[rank]
            found[worker] = tuple(int(p) for p in lists(deal)[rank][start : start + report.taken])
    return found


def closed(books: Books) -> Books:
    """The books with every list of the deal entered up to its cursor, and the epoch closed if it is over."""
    state, ledger, deal = books.replicated, books.ledger, books.deal
    if deal is None:
        return books
    enter = ledger.close if state.open else ledger.close_epoch
    return replace(books, ledger=enter(deal, state.cursors), deal=None)


def opening(reports: Sequence[Report], state: Replicated) -> int | None:
    """The size of the training set if all want the next epoch dealt now, else None."""
    if state.open or not reports or any(report.place is not LoopPosition.OPENING for report in reports):
        return None
    return max(report.samples for report in reports)


def deal_for(
    books: Books,
    members: Sequence[str],
    pending: Mapping[str, tuple[int, ...]],
    seed: int,
    restricted: bool,
    shares: Mapping[str, float],
) -> Books:
    """A new deal of what is left of the open epoch among `members`, by their `shares`."""
    if books.placement is None:
        raise RuntimeError("data is placed before it is dealt")
    ledger = books.ledger
    rank = {worker: index for index, worker in enumerate(members)}
    deal = Deal(
        number=ledger.next_deal_number,
        epoch=books.replicated.epoch,
        seed=seed,
        samples=ledger.samples,
        chunks=len(books.placement.holders),
        consumed=ledger.consumed,
        holders=tuple(tuple(sorted(rank[w] for w in h if w in rank)) for h in books.placement.holders),
        shares=tuple(shares[worker] for worker in members),
        pending=tuple(pending.get(worker, ()) for worker in members),
        restricted=restricted,
    )
    return replace(books, ledger=ledger.dealt(), deal=deal)


def deal_shares(
    state: Replicated, view: View | None, members: Sequence[str], program: Program
) -> dict[str, float]:
    """How much of a deal each should get: by its samples in a round; nothing new for one who left the epoch."""
    before = () if view is None else view.members
    left = dict(zip(before, state.left, strict=False))
    parts = state.pacing.parts(state.period.tau) if state.period.mode in _PACED else ()
    paces = dict(zip(before, parts, strict=False))
    return {
        worker: 0.0 if left.get(worker) else paces.get(worker, 1.0) * program.scale_of(rank)
        for rank, worker in enumerate(members)
    }


def seated(
    state: Replicated,
    view: View | None,
    members: Sequence[str],
    deal: Deal | None,
    blocks: tuple[int, ...] = (),
) -> Replicated:
    """The replicated state as it holds for `members` in rank order, at the start of `deal`."""
    owed = {} if view is None else dict(zip(view.members, state.owed, strict=False))
    left = {} if view is None else dict(zip(view.members, state.left, strict=False))
    sick = {} if view is None else dict(zip(view.members, state.sick, strict=False))
    residuals = {} if view is None else dict(zip(view.members, state.residuals, strict=False))
    return replace(
        state,
        cursors=tuple(0 for _ in members),
        lengths=None if deal is None else lengths(deal),
        left=tuple(state.open and left.get(worker, False) for worker in members),
        sick=tuple(sick.get(worker, any(state.sick)) for worker in members),
        residuals=tuple(residuals.get(worker, 0.0) for worker in members),
        owed=tuple(owed.get(worker, 0.0) for worker in members) if state.owed else (),
        meet=state.meet or (not state.settled and view is not None and view.members != tuple(members)),
        blocks=blocks,
        pacing=balancing.seated(state.pacing, () if view is None else view.members, tuple(members)),
    )
