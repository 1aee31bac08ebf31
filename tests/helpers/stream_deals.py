"""Random deals of streams in the middle of an epoch."""

from __future__ import annotations

import numpy as np

from raysgd_local.control.data.streams.consumption import taken_between
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.data.streams.lengths import UNKNOWN
from raysgd_local.control.data.streams.ranges import Ranges


def mid_epoch(seed: int, all_known: bool = False, **changes) -> tuple[StreamLedger, StreamDeal, np.ndarray]:
    """Return a ledger, the deal of its rest, with pending rows, and the true lengths of all shards."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, rng.choice([2, 5, 30]) + 1, rng.integers(1, 10)).astype(np.int64)
    known = rng.random(len(lengths)) < (1 if all_known else rng.choice([0.0, 0.5, 1.0]))
    ledger = StreamLedger.of(n if k else None for n, k in zip(lengths.tolist(), known, strict=True)).open_epoch(0)
    settings = {"interleave": int(rng.integers(1, 4)), "window": int(rng.choice([1, 3, 8])), **changes}
    ranks = int(rng.integers(1, 5))
    pending = [Ranges()] * ranks
    for _ in range(rng.integers(0, 3)):
        deal = ledger.deal(0, seed, (1.0,) * ranks, pending, **settings)
        ends = [sorted(rng.integers(0, 12, 2).tolist()) for _ in range(ranks)]
        pending = [taken_between(deal, rank, *ends[rank], lengths) for rank in range(ranks)]
        ledger = ledger.dealt().close(deal, [cursor for cursor, _ in ends], measured(ledger, deal, ends, lengths))
    shares = rng.choice([0.0, 0.5, 1.0, 1.7], ranks)
    shares[rng.integers(0, ranks)] = 1.0
    return ledger, ledger.deal(0, seed, tuple(shares.tolist()), pending, **settings), lengths


def measured(ledger: StreamLedger, deal: StreamDeal, ends: list, lengths: np.ndarray) -> dict[int, int]:
    """Return lengths, or bounds where they suffice, that closing the deal needs."""
    found: dict[int, int] = {}
    while wanted := ledger.lengths_needed(deal, [cursor for cursor, _ in ends], found):
        for shard, rows in wanted.items():
            found[shard] = -1 - rows if lengths[shard] >= rows else int(lengths[shard])
    return found


def hidden(lengths: np.ndarray, deal_knows: np.ndarray) -> np.ndarray:
    """Return the lengths as a reader knows them that has read nothing yet."""
    return np.where(deal_knows >= 0, lengths, UNKNOWN)
