"""The interface of compressions: encode a vector in fewer bytes, and decode it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Compression(Protocol):
    """Compresses the steps that members send: two pure functions. A frozen dataclass, the same on all members."""

    @property
    def memory(self) -> bool:
        """Whether to use error feedback: the sender adds the compression error to its next message.

        This residual is local: it is in the member's own part of a checkpoint, a joiner begins without one, and it
        is lost when the member dies.
        """
        ...

    @property
    def fine(self) -> bool:
        """Whether every element is close to its original value, so that sums can be compressed again."""
        ...

    def encode(self, vector: Tensor, sizes: Sequence[int], seed: int) -> tuple[Tensor, ...]:
        """Compress `vector`, (d,), which consists of tensors of `sizes` elements. Every message has its own `seed`.

        Shapes and dtypes of the parts depend only on `sizes` and the vector's dtype.
        """
        ...

    def decode(self, parts: Sequence[Tensor], sizes: Sequence[int], seed: int) -> Tensor:
        """Decompress a message into a vector, (d,)."""
        ...


def blocks(vector: Tensor, size: int) -> Tensor:
    """Return `vector` as rows of `size` elements, (rows, size), the last padded with zeros."""
    rows = -(-vector.numel() // size)
    padded = vector.new_zeros(rows * size)
    padded[: vector.numel()] = vector
    return padded.view(rows, size)


def largest(rows: Tensor) -> Tensor:
    """Return the largest magnitude of each row, (rows, 1); 1 for a row of zeros."""
    found = rows.abs().amax(1, keepdim=True)
    return found.masked_fill(found == 0, 1.0)


def kept(ratio: float, numel: int) -> int:
    """Return the number of elements that a share `ratio` of `numel` keeps; at least one.

    >>> kept(0.01, 1000), kept(0.01, 5)
    (10, 1)
    """
    return max(1, round(ratio * numel))
