"""Sum vectors over all members by compressed messages, with error feedback."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raysgd_local.algorithms.compression import Compression
from raysgd_local.state.compressed_messages import Messages, Residual, best_way
from raysgd_local.transport.contract import Transport


class Compressor:
    """One member's side. Every member adds all decoded messages, its own too, in rank order, so all sums are equal to
    the bit.
    """

    def __init__(self, compression: Compression, sizes: Sequence[int], like: Tensor, memory: bool) -> None:
        self._compression, self._sizes, self._like = compression, list(sizes), like.new_empty(0)
        self.numel = sum(sizes)
        self.messages = Messages(compression, sizes, like)
        self.residual = Residual(self.numel, like, memory)
        self._summable = compression.fine and memory
        self.sent = like.new_zeros(self.numel)

    def sum(self, transport: Transport, vector: Tensor, round: int, *, whole: bool = False) -> Tensor:
        """Return the sum (d,) of all members' `vector` (d,) and residuals, up to compression error.

        Keep this member's error as its residual, and its decoded message in `sent`. With `whole` nothing is compressed,
        and the residual becomes zero.
        """
        self.residual.add_to(vector)
        ways = {"gather": self._gather, "shards": self._by_shards, "whole": self._whole}
        return ways["whole" if whole else self._best_way(transport.world_size)](transport, vector, round)

    def _best_way(self, members: int) -> str:
        return best_way(self.numel, self._like.itemsize, self.messages.nbytes, members, self._summable)

    def _whole(self, transport: Transport, vector: Tensor, round: int) -> Tensor:  # noqa: ARG002
        self.sent = vector
        self.residual.keep(vector, vector)
        total = vector.clone()
        transport.all_reduce(total)
        return total

    def _gather(self, transport: Transport, vector: Tensor, round: int) -> Tensor:
        own = self.messages.encode(vector, _seed(round, transport.rank))
        self.sent = self.messages.decode(own, _seed(round, transport.rank))
        self.residual.keep(vector, self.sent)
        return _added(self.messages, transport.all_gather(own), round)

    def _by_shards(self, transport: Transport, vector: Tensor, round: int) -> Tensor:
        """Let each member sum one shard and send the compressed sum. Its residual includes the error of the sum."""
        members, rank = transport.world_size, transport.rank
        shard = -(-self.numel // members)
        messages = Messages(self._compression, [shard], self._like)
        padded = vector.new_zeros(members * shard)
        padded[: self.numel] = vector
        shards = padded.view(members, shard)
        own = torch.stack([messages.encode(row, _seed(round, rank)) for row in shards])
        sent = torch.stack([messages.decode(row, _seed(round, rank)) for row in own])
        total = _added(messages, transport.all_to_all(own), round)
        again = messages.encode(total, _seed(round, rank))
        sent[rank] += messages.decode(again, _seed(round, rank)) - total
        self.sent = sent.view(-1)[: self.numel]
        self.residual.keep(vector, self.sent)
        rows = transport.all_gather(again)
        sums = [messages.decode(row, _seed(round, peer)) for peer, row in enumerate(rows)]
        return torch.cat(sums)[: self.numel]


def _added(messages: Messages, rows: Tensor, round: int) -> Tensor:
    total = messages.decode(rows[0], _seed(round, 0))
    for rank, row in enumerate(rows[1:], start=1):
        total += messages.decode(row, _seed(round, rank))
    return total


def _seed(round: int, rank: int) -> int:
    """Return the seed of one message: different for each message, and known to all members."""
    return round * 65537 + rank
