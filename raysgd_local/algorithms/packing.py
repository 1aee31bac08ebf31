"""A flat vector written part by part, so that the first parts can travel while the last are still being written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from raysgd_local.flat import is_bounded, pack

# Each part costs a collective of its own. Writing is faster than any network: a small first part is under way soon,
# and while one travels there is time to write one that is several times as large.
_FIRST_PART, _GROWTH = 1 << 18, 4


class Packing:
    """A vector in the making: `write(number)` writes the part of `flat` that ends at `ends[number]`.

    Each part is looked at as soon as it is written. `finite` says whether all of them were (`is_bounded`) so far;
    after one that is not, it and the rest are zeros.
    """

    def __init__(self, flat: Tensor, ends: Sequence[int], write: Callable[[int], None]) -> None:
        self._flat, self._ends, self._write = flat, ends, write
        self.finite = True

    def parts(self) -> Iterator[int]:
        """Write the vector; says up to which element it is ready. The last part is left to go with what follows.

        The numbers are the same on all members, whatever they write.
        """
        begin = 0
        for number, end in enumerate(self._ends):
            if self.finite:
                self._write_part(number, begin, end)
            if end < self._flat.numel():
                yield end
            begin = end

    def _write_part(self, number: int, begin: int, end: int) -> None:
        self._write(number)
        self.finite = is_bounded(self._flat[begin:end])
        if not self.finite:
            self._flat[begin:].zero_()

    def complete(self) -> bool:
        """Write all of it now. Says whether it is finite; if not, all of it is zeros."""
        deque(self.parts(), maxlen=0)
        if not self.finite:
            self._flat.zero_()
        return self.finite


def runs(sizes: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Which tensors of these sizes each part has, and where it ends; at least one part."""
    begin, start, end, least = 0, 0, 0, _FIRST_PART
    for index, size in enumerate(sizes):
        end += size
        if end - start >= least or index == len(sizes) - 1:
            yield slice(begin, index + 1), end
            begin, start, least = index + 1, end, least * _GROWTH
    if not sizes:
        yield slice(0, 0), 0


def pack_present(pieces: Sequence[Tensor], tensors: Sequence[Tensor | None], weight: float) -> None:
    """`pack`, with zeros where there is no tensor."""
    present = [(piece, tensor) for piece, tensor in zip(pieces, tensors, strict=True) if tensor is not None]
    pack([piece for piece, _ in present], [tensor for _, tensor in present], weight)
    for piece, tensor in zip(pieces, tensors, strict=True):
        if tensor is None:
            piece.zero_()
