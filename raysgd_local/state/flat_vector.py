"""Pack many tensors into one contiguous vector, and back, at memory speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_PRIME = (1 << 48) - 59  # the largest prime below 2^48
_SHARE = 8  # a checksum reads one block in this many of a large vector
_ROW_BYTES = _SHARE * 4096
_SAMPLED_FROM_BYTES = 1 << 20  # smaller vectors are read in full


@dataclass(frozen=True)
class FlatLayout:
    """The positions of tensors in a flat vector: one after another, each with its shape and strides.

    A dense tensor keeps its strides, so that copying `channels_last` weights is linear in memory too.

    >>> layout = FlatLayout.like([torch.zeros(2, 3), torch.zeros(4)])
    >>> layout.numel, [tuple(view.shape) for view in layout.views(torch.zeros(10))]
    (10, [(2, 3), (4,)])
    """

    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]

    @classmethod
    def like(cls, tensors: Sequence[Tensor]) -> FlatLayout:
        return cls(tuple(tuple(t.shape) for t in tensors), tuple(_dense_strides(t) for t in tensors))

    @cached_property
    def sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes]

    @cached_property
    def numel(self) -> int:
        return sum(self.sizes)

    def views(self, flat: Tensor) -> list[Tensor]:
        """Split `flat` (`numel` elements) into views with the tensors' shapes and strides."""
        pieces = torch.split(flat, self.sizes)
        return [
            piece.as_strided(shape, stride)
            for piece, shape, stride in zip(pieces, self.shapes, self.strides, strict=True)
        ]


def _dense_strides(tensor: Tensor) -> tuple[int, ...]:
    """Return the tensor's strides if it fills its memory without gaps or overlaps, else those of a contiguous one."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return torch.empty(tensor.shape, device="meta").stride()
        expected *= size
    return tuple(tensor.stride())


def pack(pieces: Sequence[Tensor], tensors: Sequence[Tensor], weight: float) -> None:
    """Write `weight` × `tensors` into `pieces`, computed in the pieces' dtype. One pass over memory if dtypes agree."""
    if weight == 1.0 and pieces:
        torch._foreach_copy_(list(pieces), list(tensors))
        return
    for piece, tensor in zip(pieces, tensors, strict=True):
        if _same_type(piece, tensor):
            torch.mul(tensor, weight, out=piece)
        else:
            piece.copy_(tensor).mul_(weight)


def unpack(pieces: Sequence[Tensor], tensors: Sequence[Tensor], total: float) -> None:
    """Write `pieces` / `total` into `tensors`. `pieces` are not changed."""
    if total == 1.0 and pieces:
        torch._foreach_copy_(list(tensors), list(pieces))
        return
    for piece, tensor in zip(pieces, tensors, strict=True):
        if _same_type(piece, tensor):
            torch.div(piece, total, out=tensor)
        else:
            tensor.copy_(piece / total)


def flattened(layout: FlatLayout, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return each tensor as one dimension, in the memory order of `layout` (whose shapes they have).

    A tensor in that order already is not copied: the result shares its memory. None stays None.

    >>> weight = torch.arange(6.0).view(2, 3).t()
    >>> flattened(FlatLayout.like([weight]), [weight])
    [tensor([0., 1., 2., 3., 4., 5.])]
    """
    found: list[Tensor | None] = []
    for tensor, shape, stride in zip(tensors, layout.shapes, layout.strides, strict=True):
        if tensor is not None and not _has_strides(tensor, shape, stride):
            tensor = tensor.new_empty_strided(shape, stride).copy_(tensor)
        found.append(None if tensor is None else tensor.as_strided((math.prod(shape),), (1,)))
    return found


def _has_strides(tensor: Tensor, shape: Sequence[int], stride: Sequence[int]) -> bool:
    return all(
        own == wanted or size == 1 for own, wanted, size in zip(tensor.stride(), stride, shape, strict=True)
    )


def _same_type(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device


def checksum(flat: Tensor) -> int:
    """Return a 48-bit checksum of `flat` (contiguous, 1-D, any dtype), the same on any machine.

    It is the sum of the 64-bit words, so it finds accidental differences but not permutations or forgeries. Of a
    vector of 1 MB or more it reads an eighth, in blocks of 4 KB, chosen by the content itself. That suffices:
    replicas that diverged differ nearly everywhere, and since the content changes each round, a single differing
    element is found within some rounds.

    >>> a = torch.arange(5.0)
    >>> checksum(a) == checksum(a.clone()) != checksum(a + 1)
    True
    """
    aligned = flat.storage_offset() * flat.itemsize % 8 == 0
    content = (flat if aligned else flat.clone()).view(torch.uint8)
    rows = content.numel() // _ROW_BYTES if content.numel() >= _SAMPLED_FROM_BYTES else 0
    blocks = content[: rows * _ROW_BYTES].view(torch.int64).view(rows, _SHARE, _ROW_BYTES // 8 // _SHARE)
    rest = content[rows * _ROW_BYTES :]
    words = _sum_of_words(rest)
    if rows:
        drawn = (words + int(blocks[0].sum()) + int(blocks[-1].sum())) % _PRIME % _SHARE
        words += int(blocks[:, drawn].sum())
    return (words + content.numel()) % (1 << 64) % _PRIME


def _sum_of_words(content: Tensor) -> int:
    whole = content.numel() // 8 * 8
    tail = int.from_bytes(bytes(content[whole:].tolist()), "little")
    return int(content[:whole].view(torch.int64).sum()) + tail
