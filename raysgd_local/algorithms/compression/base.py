"""What compression is: a vector in fewer bytes, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Compression(Protocol):
    """In what form a member's step travels. A frozen dataclass, the same on all members; a pure pair of functions.

    `memory`: what was left out of a message is remembered by its sender and added to its next one (error feedback).
    That residual is local: it is in the member's own part of a checkpoint, a joiner begins with none, and it is gone
    when the member dies. `fine`: a message is close to its vector element by element, so that sums of messages can be
    compressed again.
    """

    @property
    def memory(self) -> bool: ...

    @property
    def fine(self) -> bool: ...

    def encode(self, vector: Tensor, sizes: Sequence[int], seed: int) -> tuple[Tensor, ...]:
        """`vector` (d,) is of tensors of `sizes` elements, one after the other; `seed` is the message's own.

        The parts' shapes and types depend on `sizes` and the vector's type only.
        """
        ...

    def decode(self, parts: Sequence[Tensor], sizes: Sequence[int], seed: int) -> Tensor:
        """The vector (d,) that the message stands for."""
        ...


def blocks(vector: Tensor, size: int) -> Tensor:
    """`vector` in rows of `size`, the last filled up with zeros."""
    rows = -(-vector.numel() // size)
    padded = vector.new_zeros(rows * size)
    padded[: vector.numel()] = vector
    return padded.view(rows, size)


def largest(rows: Tensor) -> Tensor:
    """The largest magnitude of each row, (rows, 1); 1 where all are 0."""
    found = rows.abs().amax(1, keepdim=True)
    return found.masked_fill(found == 0, 1.0)


def kept(ratio: float, numel: int) -> int:
    """How many of `numel` elements the share `ratio` is; at least one.

    >>> kept(0.01, 1000), kept(0.01, 5)
    (10, 1)
    """
    return max(1, round(ratio * numel))
