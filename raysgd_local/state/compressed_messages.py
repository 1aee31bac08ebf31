"""Compressed vectors as bytes, and what the sender remembers of what it left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from raysgd_local.algorithms.compression import Compression

Way = Literal["gather", "shards", "whole"]


class Messages:
    """Messages of one length, for vectors of tensors of `sizes` elements each."""

    def __init__(self, compression: Compression, sizes: Sequence[int], like: Tensor) -> None:
        self._compression, self._sizes = compression, list(sizes)
        self._parts = compression.encode(like.new_zeros(sum(sizes)), self._sizes, 0)

    @property
    def nbytes(self) -> int:
        """How long a message is."""
        return sum(part.nbytes for part in self._parts)

    def encode(self, vector: Tensor, seed: int) -> Tensor:
        """`vector` as bytes (nbytes,)."""
        parts = self._compression.encode(vector, self._sizes, seed)
        return torch.cat([part.contiguous().view(-1).view(torch.uint8) for part in parts])

    def decode(self, content: Tensor, seed: int) -> Tensor:
        """The vector that `content` stands for."""
        pieces = torch.split(content, [part.nbytes for part in self._parts])
        parts = [
            piece.clone().view(part.dtype).view(part.shape)
            for piece, part in zip(pieces, self._parts, strict=True)
        ]
        return self._compression.decode(parts, self._sizes, seed)


def best_way(numel: int, itemsize: int, message_bytes: int, members: int, summable: bool) -> Way:
    """How messages of vectors of `numel` elements travel with the fewest bytes.

    `gather`: everyone gets everyone's. `shards`: everyone sums one shard of all messages, and gathers the sums
    compressed once more; only where that is `summable`. `whole`: no message is small enough to beat the plain
    reduction of the vector.

    >>> [best_way(1000, 4, 2000, members, summable=True) for members in (2, 3, 8)]
    ['gather', 'shards', 'shards']
    >>> [best_way(1000, 4, 800, members, summable=False) for members in (2, 8, 32)]
    ['gather', 'gather', 'whole']
    """
    ring = 2 * (members - 1) / members * numel * itemsize
    gather = (members - 1) * message_bytes
    shards = 2 * (members - 1) / members * message_bytes if summable else math.inf
    if gather <= shards and gather < ring:
        return "gather"
    return "shards" if shards < ring else "whole"


class Residual:
    """What one member's messages left out so far: added to the next one.

    `before` is (d,), of what is committed; `after` of the round that is tried, and takes its place when that is
    committed. A round that broke changes nothing.
    """

    def __init__(self, numel: int, like: Tensor, memory: bool) -> None:
        self.before = like.new_zeros(numel) if memory else None
        self.after = self.before

    @property
    def norm(self) -> float:
        """Of what is committed."""
        return 0.0 if self.before is None else float(self.before.norm())

    def begin(self) -> None:
        """A round is tried, perhaps once more."""
        self.after = self.before

    def add_to(self, vector: Tensor) -> None:
        """What was left out goes with this vector."""
        if self.before is not None:
            vector.add_(self.before)

    def keep(self, vector: Tensor, sent: Tensor) -> None:
        """Of `vector` travelled `sent`."""
        if self.before is not None:
            self.after = vector - sent

    def commit(self) -> None:
        self.before = self.after

    def load(self, before: Tensor) -> None:
        """Take over what was remembered."""
        if self.before is not None:
            self.before = self.after = before.to(self.before, copy=True)

    def clear(self) -> None:
        if self.before is not None:
            self.before = self.after = torch.zeros_like(self.before)
