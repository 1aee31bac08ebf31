"""Track which worker has which chunk's data, and plan transfers, when each has only its own (`data.access: local`).

The data set is read once, when an incarnation begins. After that a worker gets a chunk only from another one that has
it. A chunk that no live worker has is lost until the run is resumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from raysgd_local.algorithms.placement.table import ChunkHolder, Placement, rebalance
from raysgd_local.control.data.deal import Sources
from raysgd_local.control.messages import Order


@dataclass(frozen=True)
class Held:
    """The chunks that one worker has."""

    own: frozenset[int] = frozenset()
    former: frozenset[int] = (
        frozenset()
    )  # given away; kept for one more order, in case the transfer must be repeated

    @property
    def chunks(self) -> tuple[int, ...]:
        return tuple(sorted(self.own | self.former))

    def after(self, order: Order, rank: int) -> Held:
        """Return the chunks of `rank` after the order's transfers have arrived."""
        if order.deal is None or not order.deal.local_data:
            return self
        own = frozenset(chunk for chunk, ranks in enumerate(order.deal.holders) if rank in ranks)
        return Held(own, self.own - own)


@dataclass(frozen=True)
class Gift:
    """A transfer of chunks from one rank to others."""

    source: int  # rank that sends
    chunks: tuple[int, ...]
    receivers: tuple[tuple[int, ...], ...]  # for each chunk, the ranks that receive it

    def received_by(self, rank: int) -> tuple[int, ...]:
        return tuple(c for c, ranks in zip(self.chunks, self.receivers, strict=True) if rank in ranks)


def gifts(order: Order) -> tuple[Gift, ...]:
    """Return the transfers needed before the members can go on, by the sender's rank; the same on all members."""
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
    """Return for each chunk the workers that have it, in the order of `have`; empty if no worker has any chunk."""
    if not any(have.values()):
        return ()
    sets = {worker: frozenset(held) for worker, held in have.items()}
    return tuple(tuple(w for w, held in sets.items() if chunk in held) for chunk in range(chunks))


def placed(placement: Placement, have: Sources, live: Sequence[ChunkHolder], copies: int) -> Placement:
    """Place the chunks that some worker has among the `live` workers; a lost chunk gets no holder."""
    there = [chunk for chunk, workers in enumerate(have) if workers]
    rows = [_kept(placement.holders[chunk], have[chunk]) for chunk in there]
    new = dict(zip(there, rebalance(Placement(tuple(rows)), live, copies).holders, strict=True))
    return replace(placement, holders=tuple(new.get(chunk, ()) for chunk in range(placement.chunks)))


def _kept(holders: Sequence[str], have: Sequence[str]) -> tuple[str, ...]:
    """Return the table's holders that have the chunk, or if there are none, all workers that have it."""
    return tuple(sorted(worker for worker in holders if worker in have)) or tuple(sorted(have))


def alone(have: Mapping[str, Sequence[int]], leaving: Sequence[str]) -> tuple[str, ...]:
    """Return the workers of `leaving` that have a chunk that no staying worker has."""
    elsewhere = {chunk for worker, held in have.items() if worker not in leaving for chunk in held}
    return tuple(worker for worker in leaving if set(have.get(worker, ())) - elsewhere)
