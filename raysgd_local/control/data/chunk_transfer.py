"""Who has which chunks' data where each worker has its own alone (`data.access: local`). All pure.

The data set is read once, when a life of the run begins. From there on a chunk comes from a worker that has it, and
what no live worker has is lost until the run is resumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from raysgd_local.algorithms.placement.table import ChunkHolder, Placement, rebalance
from raysgd_local.control.data.deal import Sources
from raysgd_local.control.messages import Order


@dataclass(frozen=True)
class Held:
    """The chunks that one worker has. What it has given away it keeps for an order more: it may be asked for it."""

    own: frozenset[int] = frozenset()
    former: frozenset[int] = frozenset()

    @property
    def chunks(self) -> tuple[int, ...]:
        return tuple(sorted(self.own | self.former))

    def after(self, order: Order, rank: int) -> Held:
        """Once what the order moves has arrived."""
        if order.deal is None or not order.deal.local_data:
            return self
        own = frozenset(chunk for chunk, ranks in enumerate(order.deal.holders) if rank in ranks)
        return Held(own, self.own - own)


@dataclass(frozen=True)
class Gift:
    """Rank `source` gives these chunks, each to the ranks at its place in `receivers`."""

    source: int
    chunks: tuple[int, ...]
    receivers: tuple[tuple[int, ...], ...]

    def received_by(self, rank: int) -> tuple[int, ...]:
        return tuple(c for c, ranks in zip(self.chunks, self.receivers, strict=True) if rank in ranks)


def gifts(order: Order) -> tuple[Gift, ...]:
    """What has to be given before the members can go on, by the giver's rank; the same on all members."""
    if order.deal is None or not order.deal.local_data or not order.sources:
        return ()
    found: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    for chunk, (holders, sources) in enumerate(zip(order.deal.holders, order.sources, strict=True)):
        lacking = tuple(rank for rank in holders if order.view.members[rank] not in sources)
        if lacking and sources:
            found.setdefault(order.view.rank(sources[0]), []).append((chunk, lacking))
    return tuple(
        Gift(source, tuple(chunk for chunk, _ in given), tuple(ranks for _, ranks in given))
        for source, given in sorted(found.items())
    )


def sources(have: Mapping[str, Sequence[int]], chunks: int) -> Sources:
    """For each chunk who has it, in the order of `have`; nothing if nobody has any."""
    if not any(have.values()):
        return ()
    sets = {worker: frozenset(held) for worker, held in have.items()}
    return tuple(tuple(w for w, held in sets.items() if chunk in held) for chunk in range(chunks))


def placed(placement: Placement, have: Sources, live: Sequence[ChunkHolder], copies: int) -> Placement:
    """The placement among `live` of what somebody has; a chunk that nobody has gets no holder."""
    there = [chunk for chunk, workers in enumerate(have) if workers]
    rows = [_kept(placement.holders[chunk], have[chunk]) for chunk in there]
    new = dict(zip(there, rebalance(Placement(tuple(rows)), live, copies).holders, strict=True))
    return replace(placement, holders=tuple(new.get(chunk, ()) for chunk in range(placement.chunks)))


def _kept(holders: Sequence[str], have: Sequence[str]) -> tuple[str, ...]:
    """The holders by the table that really have it, or else whoever has."""
    return tuple(sorted(worker for worker in holders if worker in have)) or tuple(sorted(have))


def alone(have: Mapping[str, Sequence[int]], leaving: Sequence[str]) -> tuple[str, ...]:
    """Those of `leaving` that have a chunk that nobody who stays has."""
    elsewhere = {chunk for worker, held in have.items() if worker not in leaving for chunk in held}
    return tuple(worker for worker in leaving if set(have.get(worker, ())) - elsewhere)
