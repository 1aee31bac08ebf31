"""Check the books of a stream: its ledger agrees with the rows in the model, and each row is dealt once."""

from __future__ import annotations

import numpy as np

from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.data.streams import coding
from raysgd_local.control.data.streams.consumption import taken_between
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.ledger import OpenEpoch, StreamLedger
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
        if not any(books.replicated.cursors) and any(books.deal.shares):
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
    """Check that a new deal has each row of the open epoch that is not consumed once."""
    lengths = np.array(stream.lengths, dtype=np.int64)
    everything = sum(stream.lengths) + 1
    dealt: list[int] = []
    for rank in range(len(deal.shares)):
        dealt += stream.numbers(taken_between(deal, rank, 0, everything, lengths))
    left = set(range(sum(stream.lengths))) - _consumed(ledger.open[0], stream)
    if len(set(dealt)) < len(dealt) or set(dealt) != left:
        twice = len(dealt) - len(set(dealt))
        violated("4: every row is dealt once", f"deal {deal.number}: {twice} twice, {left ^ set(dealt)} differ")
