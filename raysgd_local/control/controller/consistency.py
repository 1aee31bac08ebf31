"""Judge whether a checkpoint's record can be of a run: damage that leaves all types right contradicts itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

from raysgd_local.algorithms.placement.table import Placement
from raysgd_local.algorithms.schedules.base import Period
from raysgd_local.control.data.deal import Deal, ends_at, parts
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.data.streams import coding
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.data.streams.lengths import Lengths
from raysgd_local.control.data.streams.parts import parts as parts_of
from raysgd_local.control.data.streams.ranges import ROWS
from raysgd_local.control.replicated.state import Replicated

_MOST = 2**62


def contradiction(
    members: tuple[str, ...],
    state: Replicated,
    ledger: Ledger | StreamLedger,
    deal: Deal | StreamDeal | None,
    placement: Placement | None,
) -> str:
    """Return the first contradiction among the parts of a checkpoint's record; empty if there is none."""
    return next(_contradictions(members, state, ledger, deal, placement), "")


def contradiction_of_period(period: Period) -> str:
    """Return the reason why no schedule has this period; empty if one may."""
    right = 1 <= period.tau <= _MOST and 0 <= period.delay < max(2, period.tau)
    return "" if right else f"a period of {period.tau} steps with delay {period.delay}"


def contradiction_of_lengths(ledger: Ledger | StreamLedger, found: Lengths) -> str:
    """Return the reason why these can't be lengths of the ledger's shards; empty if they can."""
    shards = ledger.shards if isinstance(ledger, StreamLedger) else 0
    right = all(len(entry) == 2 and 0 <= entry[0] < shards and abs(entry[1]) <= 2 * ROWS for entry in found)
    return "" if right else f"lengths of shards that are none of {shards}"


def _contradictions(
    members: tuple[str, ...],
    state: Replicated,
    ledger: Ledger | StreamLedger,
    deal: Deal | StreamDeal | None,
    placement: Placement | None,
) -> Iterator[str]:
    if not members or len(set(members)) < len(members):
        yield f"members {members}"
    yield from _of_counts(state, ledger)
    yield from _of_ranks(state, len(members))
    if isinstance(ledger, StreamLedger):
        yield from _of_stream(state, ledger, deal, len(members))
        return
    if isinstance(deal, StreamDeal):
        yield "a stream's deal, and no ledger of a stream"
        return
    yield from _of_ledger(ledger)
    if deal is not None:
        yield from _of_deal(deal, ledger, len(members))
    yield from _of_epoch(state, ledger, deal)
    if placement is not None and deal is not None and placement.chunks != deal.chunks:
        yield f"{placement.chunks} chunks are placed and {deal.chunks} dealt"


def _of_counts(state: Replicated, ledger: Ledger | StreamLedger) -> Iterator[str]:
    names = ("round", "steps", "samples", "wire_bytes", "epoch", "evaluations")
    counts = {name: getattr(state, name) for name in names}
    counts |= {name: getattr(ledger, name) for name in ("deals", "samples_lost", "samples_repeated")}
    for name, value in counts.items():
        if not 0 <= value <= _MOST:
            yield f"{name} is {value}"
    if not 0 <= state.elapsed_s < _MOST:
        yield f"elapsed_s is {state.elapsed_s}"
    if not -1 <= state.evaluated_round <= state.round:
        yield f"round {state.round}, and round {state.evaluated_round} was evaluated"


def _of_ranks(state: Replicated, members: int) -> Iterator[str]:
    """Tuples with a value for each rank. Those that some methods leave out may be empty."""
    always: dict[str, Sized | None] = {"cursors": state.cursors, "left_epoch": state.left_epoch}
    always |= {"lengths": state.lengths}
    often = {"sick": state.sick, "residuals": state.residuals, "pacing": state.pacing.paces}
    often |= {"owed": state.owed, "blocks": state.blocks, "loops": state.loops, "skips": state.skips}
    for name, values in (always | often).items():
        if values is not None and len(values) != members and (name in always or len(values)):
            yield f"{name} has {len(values)} values for {members} members"
    if not all(math.isfinite(pace.share) and pace.share > 0 for pace in state.pacing.paces):
        yield "a worker's share of the steps is not above 0"


def _of_ledger(ledger: Ledger) -> Iterator[str]:
    wanted = 0 if ledger.epoch is None else (ledger.samples + 7) // 8
    if any(len(bitmap) != wanted for bitmap in (ledger.consumed, *ledger.ahead)):
        yield f"a bitmap of {len(ledger.consumed)} bytes for {ledger.samples} samples"


def _of_deal(deal: Deal, ledger: Ledger, members: int) -> Iterator[str]:
    begun = ledger.epoch is not None and deal.epoch <= ledger.epoch < deal.epoch + parts(deal)
    if not begun or deal.samples != ledger.samples or not 1 <= deal.number <= ledger.deals:
        yield "the deal is not of the ledger's epoch"
    if len(deal.consumed) != (deal.samples + 7) // 8 or not 1 <= deal.chunks == len(deal.holders):
        yield "the deal has other chunks than it says"
    if not len(deal.shares) == len(deal.pending) == members or deal.seed < 0:
        yield f"the deal is not to {members} members"
    if not all(0 <= rank < members for chunk in deal.holders for rank in chunk):
        yield "the deal has a holder who is no member"
    entries = deal.samples * parts(deal)
    if not all(0 <= position < entries for positions in deal.pending for position in positions):
        yield "the deal has a position beyond the training set"
    if not all(math.isfinite(share) and share >= 0 for share in deal.shares):
        yield "the deal has a share that is no number"


def _of_stream(
    state: Replicated, ledger: StreamLedger, deal: Deal | StreamDeal | None, members: int
) -> Iterator[str]:
    for name in ("rows_split", "shards_unread", "shards"):
        if not 0 <= getattr(ledger, name) <= _MOST:
            yield f"{name} is {getattr(ledger, name)}"
    if len(ledger.known_lengths()) != ledger.shards:
        yield f"{len(ledger.known_lengths())} lengths of {ledger.shards} shards"
    if any(len(coding.decode_flags(book.finished)) != ledger.shards for book in ledger.open):
        yield "the open epoch is of another number of shards"
    if deal is None:
        if state.open and state.lengths is not None:
            yield "the open epoch has no deal"
        return
    if not isinstance(deal, StreamDeal) or deal.names != ledger.names or deal.shards != ledger.shards:
        yield "the deal is of another source"
        return
    begun = ledger.epoch is not None and deal.epoch <= ledger.epoch < deal.epoch + parts_of(deal)
    if not begun or not 1 <= deal.number <= ledger.deals or bool(deal.epochs) != bool(state.epochs):
        yield "the deal is not of the ledger's epoch"
    yield from _of_parts(deal)
    if len(deal.shares) != members or deal.seed < 0:
        yield f"the deal is not to {members} members"
    if not all(math.isfinite(share) and share >= 0 for share in deal.shares):
        yield "the deal has a share that is no number"
    ends = state.list_ends or ()
    if len(ends) != len(state.cursors) or not all(
        0 <= cursor <= end for cursor, end in zip(state.cursors, ends, strict=True)
    ):
        yield "a cursor is beyond its list"


def _of_parts(deal: StreamDeal) -> Iterator[str]:
    """Where rounds go across epochs, each part of the lists is of the source, and to the members."""
    ranks = (*deal.later_pending, *((deal.left,) if deal.epochs else ()))
    if any(len(row) != len(deal.shares) for row in ranks):
        yield "the later epochs' lists are of other members"
    if bool(deal.epochs) != bool(deal.ahead) or any(
        len(coding.decode_flags(epoch.finished)) != deal.shards for epoch in deal.ahead
    ):
        yield "the later epochs are of another number of shards"


def _of_epoch(state: Replicated, ledger: Ledger, deal: Deal | None) -> Iterator[str]:
    if state.lengths is None or not state.open:
        return
    if deal is None or ledger.epoch != state.epoch or ends_at(deal, state.epoch) != state.lengths:
        yield "the open epoch's deal has lists of other lengths"
    if not 0 <= state.epochs <= _MOST or any(len(row) != len(state.lengths) for row in state.later):
        yield "the later epochs' lists are of other members"
        return
    ends = state.list_ends or ()
    if not all(0 <= cursor <= end for cursor, end in zip(state.cursors, ends, strict=True)):
        yield "a cursor is beyond its list"
