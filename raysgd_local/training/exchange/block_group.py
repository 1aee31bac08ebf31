"""A block of a view's members, with the collectives that averaging within it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from raysgd_local.training.exchange.own_type import sum_by_shards
from raysgd_local.transport.contract import Transport


class BlockGroup:
    """Collectives among `peers`, ranks of the view. All members of the view call them at once, each for its block."""

    def __init__(self, transport: Transport, peers: Sequence[int]) -> None:
        self._transport, self._peers = transport, list(peers)
        self.rank, self.world_size = self._peers.index(transport.rank), len(self._peers)

    def all_reduce(self, flat: Tensor) -> None:
        """Sum `flat` over the block, in place."""
        sum_by_shards(self, flat, [1.0] * self.world_size, None, flat.dtype)

    def all_gather(self, content: Tensor) -> Tensor:
        """Return every member's `content`, uint8, in the order of `peers`."""
        return self._swap(lambda _: content)

    def all_to_all(self, rows: Tensor) -> Tensor:
        """Send row i of `rows`, uint8, to peer i. Row j of the result is from peer j."""
        return self._swap(lambda index: rows[index])

    def _swap(self, part: Callable[[int], Tensor]) -> Tensor:
        given = {peer: part(index) for index, peer in enumerate(self._peers)}
        own = given[self._transport.rank]
        empty = own.new_empty(0)
        others = {peer: row for peer, row in given.items() if peer != self._transport.rank}
        told = self._transport.swap([others.get(peer, empty) for peer in range(self._transport.world_size)])
        return torch.stack([own if peer == self._transport.rank else told[peer] for peer in self._peers])
