"""Write a flat vector block by block, so that the first blocks can be sent while the last are being written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raysgd_local.state.flat_vector import FlatLayout, flattened, pack

_BLOCK = 1 << 17  # elements; a block is still in the processor's cache when it is checked after writing

Write = Callable[[int], None]  # writes the block with this number


class Packing:
    """Writes `flat`, (numel,), block by block: `write(number)` writes the block that ends at `ends[number]`.

    Each block is checked for overflow (see `finite`) as soon as it is written.
    """

    def __init__(self, flat: Tensor, ends: Sequence[int], write: Write) -> None:
        self._flat, self._ends, self._write = flat, ends, write
        self._squares = flat.new_zeros(())

    def parts(self) -> Iterator[int]:
        """Write the vector, and yield after each block but the last the number of elements written so far.

        The numbers are the same on all members, whatever they write. This is `ready` of `Transport.all_reduce`.
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
        """Whether all elements written are finite, and so small that no sum of such vectors can overflow.

        A finite sum of squares shows both, in one pass: in float32 no element can then exceed 2e19, which leaves
        room for 1e19 members. So the reduced vector needs no check of its own.
        """
        return bool(torch.isfinite(self._squares))

    def complete(self) -> bool:
        """Write the whole vector now. If it is not `finite`, zero it and return False."""
        deque(self.parts(), maxlen=0)
        finite = self.finite
        if not finite:
            self._flat.zero_()
        return finite


@dataclass(frozen=True)
class _Stretch:
    """A piece of a tensor, and its position in the vector."""

    tensor: int  # index of the tensor
    low: int  # first element, in the tensor's memory order
    high: int  # one past the last element
    begin: int  # position of the first element in the vector

    @property
    def place(self) -> slice:
        return slice(self.begin, self.begin + self.high - self.low)


class PackedBlocks:
    """The blocks (at least one) in which tensors of `layout`, at the beginning of a vector, are written."""

    def __init__(self, layout: FlatLayout) -> None:
        self._layout = layout
        self.ends = [*range(_BLOCK, layout.numel, _BLOCK), layout.numel]
        self._stretches = _cut(layout.sizes, self.ends)

    def writer(self, flat: Tensor, tensors: Sequence[Tensor | None], weight: float) -> Write:
        """Return a function that writes a block of `weight` × `tensors` into `flat`; zeros for None."""
        sources = flattened(self._layout, tensors)

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
    """Return for each block its stretches of tensors of these sizes."""
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
