"""Compressed vectors as bytes, and error feedback: the sender adds the compression error to its next message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from raysgd_local.algorithms.compression import Compression

Way = Literal["gather", "shards", "whole"]


class Messages:
    """Encode vectors as messages of a fixed length. `sizes`: elements of each tensor that a vector consists of."""

    def __init__(self, compression: Compression, sizes: Sequence[int], like: Tensor) -> None:
        self._compression, self._sizes = compression, list(sizes)
        self._parts = compression.encode(like.new_zeros(sum(sizes)), self._sizes, 0)

    @property
    def nbytes(self) -> int:
        """Length of a message in bytes."""
        return sum(part.nbytes for part in self._parts)

    def encode(self, vector: Tensor, seed: int) -> Tensor:
        """Compress `vector`, (sum(sizes),), into bytes: uint8, (nbytes,)."""
        parts = self._compression.encode(vector, self._sizes, seed)
        return torch.cat([part.contiguous().view(-1).view(torch.uint8) for part in parts])

    def decode(self, content: Tensor, seed: int) -> Tensor:
        """Decompress a message, (nbytes,), into a vector, (sum(sizes),)."""
        pieces = torch.split(content, [part.nbytes for part in self._parts])
        parts = [
            piece.clone().view(part.dtype).view(part.shape)
            for piece, part in zip(pieces, self._parts, strict=True)
        ]
        return self._compression.decode(parts, self._sizes, seed)


def best_way(numel: int, itemsize: int, message_bytes: int, members: int, summable: bool) -> Way:
    """Choose the collective that sends compressed vectors of `numel` elements with the fewest bytes.

    `gather`: every member receives all messages. `shards`: every member sums one shard of all vectors, compresses
    the sum once more, and all gather those; only for a `summable` compression. `whole`: the messages are too large
    to beat the uncompressed all-reduce.

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
    """One member's residual for error feedback: the accumulated compression error, added to its next message.

    An averaging that fails must not change the residual, so there are two: `after` replaces `before` when the round
    is committed. Without `memory` there is no residual.
    """

    def __init__(self, numel: int, like: Tensor, memory: bool) -> None:
        self.before = like.new_zeros(numel) if memory else None  # (d,), as of the last committed round
        self.after = self.before  # (d,), of the round being averaged

    @property
    def norm(self) -> float:
        """Norm of the committed residual."""
        return 0.0 if self.before is None else float(self.before.norm())

    def begin(self) -> None:
        """Begin to average a round, or to repeat it after a failure."""
        self.after = self.before

    def add_to(self, vector: Tensor) -> None:
        """Add the residual to the vector that is about to be sent."""
        if self.before is not None:
            vector.add_(self.before)

    def keep(self, vector: Tensor, sent: Tensor) -> None:
        """Remember the compression error `vector` − `sent`."""
        if self.before is not None:
            self.after = vector - sent

    def commit(self) -> None:
        self.before = self.after

    def load(self, before: Tensor) -> None:
        """Restore the residual from a checkpoint."""
        if self.before is not None:
            self.before = self.after = before.to(self.before, copy=True)

    def clear(self) -> None:
        if self.before is not None:
            self.before = self.after = torch.zeros_like(self.before)
