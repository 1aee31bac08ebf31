"""A flat vector written block by block, so that the first can travel while the last are still being written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raysgd_local.state.flat_vector import FlatLayout, lines, pack

# Elements. What was written is still in the processor's cache when it is looked at.
_BLOCK = 1 << 17

Write = Callable[[int], None]


class Packing:
    """A vector in the making: `write(number)` writes the block of `flat` that ends at `ends[number]`.

    Each block is looked at as soon as it is written.
    """

    def __init__(self, flat: Tensor, ends: Sequence[int], write: Write) -> None:
        self._flat, self._ends, self._write = flat, ends, write
        self._squares = flat.new_zeros(())

    def parts(self) -> Iterator[int]:
        """Write the vector; says up to which element it is ready. The last block is left to go with what follows.

        The numbers are the same on all members, whatever they write.
        """
        begin = 0
        for number, end in enumerate(self._ends):
            self._write(number)
            block = self._flat[begin:end]
            self._squares = self._squares + torch.dot(block, block)
            if end < self._flat.numel():
                yield end
            begin = end

    @property
    def finite(self) -> bool:
        """Whether all that is written is, and so small that no sum of such vectors overflows (see `is_bounded`)."""
        return bool(torch.isfinite(self._squares))

    def complete(self) -> bool:
        """Write all of it now. Says whether it is finite; if not, all of it is zeros."""
        deque(self.parts(), maxlen=0)
        finite = self.finite
        if not finite:
            self._flat.zero_()
        return finite


@dataclass(frozen=True)
class _Stretch:
    """Elements `low` to `high` of a tensor's memory, which belong at `begin` in the vector."""

    tensor: int
    low: int
    high: int
    begin: int

    @property
    def place(self) -> slice:
        return slice(self.begin, self.begin + self.high - self.low)


class PackedBlocks:
    """The blocks that tensors laid out by `layout` at a vector's beginning are written in; at least one."""

    def __init__(self, layout: FlatLayout) -> None:
        self._layout = layout
        self.ends = [*range(_BLOCK, layout.numel, _BLOCK), layout.numel]
        self._stretches = _cut(layout.sizes, self.ends)

    def writer(self, flat: Tensor, tensors: Sequence[Tensor | None], weight: float) -> Write:
        """Writes a block of `weight` × `tensors`, zeros where there is none."""
        sources = lines(self._layout, tensors)

        def write(number: int) -> None:
            present = []
            for stretch in self._stretches[number]:
                source, piece = sources[stretch.tensor], flat[stretch.place]
                if source is None:
                    piece.zero_()
                else:
                    present.append((piece, source[stretch.low : stretch.high]))
            pack([piece for piece, _ in present], [source for _, source in present], weight)

        return write


def _cut(sizes: Sequence[int], ends: Sequence[int]) -> list[list[_Stretch]]:
    """Which stretches of tensors of these sizes each block has."""
    blocks: list[list[_Stretch]] = [[] for _ in ends]
    begin = 0
    for tensor, size in enumerate(sizes):
        low = 0
        while low < size:
            number = (begin + low) // _BLOCK
            high = min(size, ends[number] - begin)
            blocks[number].append(_Stretch(tensor, low, high, begin + low))
            low = high
        begin += size
    return blocks
