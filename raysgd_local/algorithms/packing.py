"""A flat vector written part by part, so that the first parts can travel while the last are still being written."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raysgd_local.flat import FlatLayout, pack

# Each part costs a collective of its own. Writing is faster than any network: a small first part is under way soon,
# and while one travels there is time to write one that is several times as large.
_FIRST_PART, _GROWTH = 1 << 18, 4


@dataclass(frozen=True)
class Packing:
    """A vector in the making. Drawing from `parts` writes it, and says up to which element it is ready.

    The numbers are the same on all members. Unless `finite` the vector is all zeros already.
    """

    finite: bool
    parts: Iterator[int]

    def complete(self) -> bool:
        """Write all of it now; says whether it is finite."""
        deque(self.parts, maxlen=0)
        return self.finite


class Parts:
    """The parts that tensors laid out by `layout` at the vector's beginning are written in: runs of whole tensors."""

    def __init__(self, layout: FlatLayout) -> None:
        self._layout = layout
        self._runs = list(_runs(layout.sizes))

    def write(self, flat: Tensor, tensors: Sequence[Tensor | None], weight: float) -> Iterator[int]:
        """Write `weight` × `tensors`, zeros where there is none. The last part is left to go with what follows."""
        pieces = self._layout.views(flat[: self._layout.numel])
        for run, end in self._runs:
            with torch.no_grad():
                _write(pieces[run], tensors[run], weight)
            if end < self._layout.numel:
                yield end

    def ends(self) -> Iterator[int]:
        """The same numbers, for a vector that is written already."""
        return (end for _, end in self._runs if end < self._layout.numel)


def _runs(sizes: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Which tensors each part has, and where it ends."""
    begin, start, end, least = 0, 0, 0, _FIRST_PART
    for index, size in enumerate(sizes):
        end += size
        if end - start >= least or index == len(sizes) - 1:
            yield slice(begin, index + 1), end
            begin, start, least = index + 1, end, least * _GROWTH


def _write(pieces: Sequence[Tensor], tensors: Sequence[Tensor | None], weight: float) -> None:
    present = [(piece, tensor) for piece, tensor in zip(pieces, tensors, strict=True) if tensor is not None]
    pack([piece for piece, _ in present], [tensor for _, tensor in present], weight)
    for piece, tensor in zip(pieces, tensors, strict=True):
        if tensor is None:
            piece.zero_()
