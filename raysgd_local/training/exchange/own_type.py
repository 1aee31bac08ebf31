"""Send bf16 and fp16 parameters at two bytes each, and add them in float32."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Protocol

import torch
from torch import Tensor

from raysgd_local.algorithms.algorithm import Exchange

_NARROW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Span:
    """A stretch of the parameters' vector in which all parameters have one type."""

    place: slice
    dtype: torch.dtype

    @property
    def narrow(self) -> bool:
        return self.dtype in _NARROW

    @property
    def nbytes(self) -> int:
        return int(self.place.stop - self.place.start) * self.dtype.itemsize


class Group(Protocol):
    """Members that average: those of a view (a `Transport`), or of one block."""

    rank: int
    world_size: int

    def all_reduce(self, flat: Tensor) -> None: ...

    def all_gather(self, content: Tensor) -> Tensor: ...

    def all_to_all(self, rows: Tensor) -> Tensor: ...


class OwnType:
    """The mean over all members of parameter vectors (d,), each span of which travels in its parameters' type.

    Each member averages one shard of a narrow span. It receives the others' values exactly. It returns the mean
    rounded to two bytes, as each model of that type holds it anyway; for a method with an anchor it returns the
    rounded step from the anchor to the mean, so that the anchor keeps the precision of float32.
    """

    def __init__(self, parameters: Sequence[Tensor], like: torch.dtype, exchange: Exchange = "same") -> None:
        types = [p.dtype if exchange == "same" and p.dtype in _NARROW else like for p in parameters]
        self.spans = tuple(_joined([p.numel() for p in parameters], types))
        self.narrow = any(span.narrow for span in self.spans)

    def average(self, group: Group, own: Tensor, shares: Sequence[float], anchor: Tensor | None) -> None:
        """Replace `own` (d,) by the sum of all members' vectors times their shares: equal to the bit on all members.

        The shares sum to 1. A member whose share is 0 doesn't count, whatever it sends.
        """
        for span in self.spans:
            piece = own[span.place]
            if span.narrow:
                base = None if anchor is None else anchor[span.place]
                sum_by_shards(group, piece, shares, base, span.dtype)
            else:
                share = shares[group.rank]
                piece.mul_(share) if share else piece.zero_()
                group.all_reduce(piece)

    def encode(self, vector: Tensor) -> Tensor:
        """Return `vector` (d,) as bytes, each span in its type."""
        return torch.cat([vector[span.place].to(span.dtype).view(torch.uint8) for span in self.spans])

    def decode(self, message: Tensor, like: Tensor) -> Tensor:
        """Return the vector (d,) of a message, in the type of `like`."""
        parts = torch.split(message, [span.nbytes for span in self.spans])
        return torch.cat(
            [part.clone().view(span.dtype).to(like) for part, span in zip(parts, self.spans, strict=True)]
        )


def _joined(sizes: Sequence[int], types: Sequence[torch.dtype]) -> Iterable[Span]:
    """Yield the spans in order; neighbours of one type are one span."""
    begin = 0
    for dtype, run in groupby(zip(types, sizes, strict=True), key=itemgetter(0)):
        end = begin + sum(size for _, size in run)
        yield Span(slice(begin, end), dtype)
        begin = end


def sum_by_shards(
    group: Group, own: Tensor, shares: Sequence[float], base: Tensor | None, dtype: torch.dtype
) -> None:
    """Replace `own` by the sum of all members' vectors times their shares, sent in `dtype`; less rounding, plus `base`.

    Every member adds up one shard, from which it takes `base`, if any; then all receive all shards.
    """
    members, rank = group.world_size, group.rank
    shard = -(-own.numel() // members)
    padded = own.new_zeros(members * shard, dtype=dtype)
    padded[: own.numel()] = own
    rows = group.all_to_all(padded.view(members, shard).view(torch.uint8)).view(dtype)
    mean = own.new_zeros(shard)
    for row, share in zip(rows, shares, strict=True):
        if share:
            mean.add_(row.to(own), alpha=share)
    mine = slice(min(rank * shard, own.numel()), min((rank + 1) * shard, own.numel()))
    if base is not None:
        mean[: mine.stop - mine.start].sub_(base[mine])
    told = group.all_gather(mean.to(dtype).view(torch.uint8)).view(dtype)
    own.copy_(told.view(-1)[: own.numel()])
    if base is not None:
        own.add_(base)
