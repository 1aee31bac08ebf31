"""Check the books of a stream: its ledger agrees with the rows in the model, and each row is dealt once."""

from __future__ import annotations

import numpy as np

from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.data.streams import coding
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.ledger import OpenEpoch, StreamLedger
from raysgd_local.control.data.streams.parts import begins, ends_at, part, parts, taken_by_epoch
from raysgd_local.control.data.streams.ranges import ROWS, Ranges
from raysgd_local.simulation.engine.streams import StreamPlan
from raysgd_local.simulation.engine.violation import violated
from raysgd_local.simulation.search.model import NumberAnchor


def check_stream(ledger: StreamLedger, books: Books, anchor: NumberAnchor, stream: StreamPlan) -> None:
    """Raise `Violated` if the books of a stream don't say what is in the model."""
    known = ledger.known_lengths()
    if any(length not in (-1, own) for length, own in zip(known.tolist(), stream.lengths, strict=True)):
        violated("4: lengths are those of the shards", str(known))
    entered = ledger
    if isinstance(books.deal, StreamDeal):
        entered = ledger.close(books.deal, books.replicated.cursors, dict(books.found))
        if books.replicated.cursors == begins(books.deal):
            _check_dealt(ledger, books.deal, stream)
    for epoch in entered.open:
        told, inside = _consumed(epoch, stream), _inside(anchor, epoch.epoch)
        if told != inside:
            differ = sorted(told ^ inside)
            violated("4: the ledger knows what is in the model", f"epoch {epoch.epoch}, rows {differ}")


def _consumed(epoch: OpenEpoch, stream: StreamPlan) -> set[int]:
    finished = np.flatnonzero(coding.decode_flags(epoch.finished)).tolist()
    whole = Ranges.of([(shard * ROWS, shard * ROWS + stream.lengths[shard]) for shard in finished])
    return set(stream.numbers(whole | Ranges.decode(epoch.begun)))


def _inside(anchor: NumberAnchor, epoch: int) -> set[int]:
    times = np.frombuffer(anchor.times(epoch), dtype=np.uint8)
    return set(np.flatnonzero(times).tolist())


def _check_dealt(ledger: StreamLedger, deal: StreamDeal, stream: StreamPlan) -> None:
    """Check that a new deal has each row of the open epoch, and of all later ones, that is not consumed once."""
    lengths = np.array(stream.lengths, dtype=np.int64)
    consumed = {book.epoch: _consumed(book, stream) for book in ledger.open}
    dealt: dict[int, list[int]] = {deal.epoch + index: [] for index in range(parts(deal))}
    for rank in range(len(deal.shares)):
        end = ends_at(deal, max(dealt)) if deal.epochs else sum(stream.lengths) + 1
        for epoch, rows in taken_by_epoch(deal, rank, 0, end, lengths).items():
            dealt[epoch] += stream.numbers(rows)
    for epoch, numbers in dealt.items():
        left = set(range(sum(stream.lengths))) - consumed.get(epoch, set())
        taken = any(share > 0 for share in part(deal, epoch - deal.epoch).shares)
        if len(set(numbers)) < len(numbers) or (taken and set(numbers) != left):
            twice, differ = len(numbers) - len(set(numbers)), left ^ set(numbers)
            said = f"deal {deal.number}, epoch {epoch}: {twice} twice, {differ} differ"
            violated("4: every row is dealt once", said)
