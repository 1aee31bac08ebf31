"""Pack token sequences of any length into samples of one length."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from raysgd_local.errors import InputError

Tokens = npt.NDArray[np.int64]


class Pack:
    """Join token sequences one after the other, and cut them into samples of `length` tokens, (length,) int64.

    The rest at the end of a worker's list, fewer than `length` tokens, is filled up with `pad`, or dropped.

    >>> pack = Pack(4, separator=0)
    >>> [sample.tolist() for sample in pack.add([1, 2])], pack.held()
    ([], 1)
    >>> [sample.tolist() for sample in pack.add([3, 4, 5, 6, 7])], pack.held()
    ([[1, 2, 0, 3], [4, 5, 6, 7]], 1)

    Raises `InputError` unless length ≥ 1.
    """

    def __init__(self, length: int, separator: int | None = None, pad: int | None = None) -> None:
        if not isinstance(length, int) or length < 1:
            raise InputError("length", length, "an integer of at least 1")
        self.length, self.separator, self.pad = length, separator, pad
        self._parts: deque[Tokens] = deque()  # tokens that are in no sample yet, by input
        self._count = 0  # of these tokens

    def add(self, item: Sequence[int] | Any) -> list[Tokens]:
        """Take a sequence of tokens: a list, an array or a tensor of whole numbers, (n,)."""
        try:
            tokens = np.asarray(item)
        except ValueError:
            tokens = np.empty((0, 0))
        if tokens.ndim != 1 or (len(tokens) and tokens.dtype.kind not in "iu"):
            allowed = (
                "a sequence of whole numbers: give ctx.batches a function before it that makes tokens of a row"
            )
            raise InputError("transform", f"Pack, given {type(item).__name__}", allowed)
        if self.separator is not None:
            tokens = np.append(tokens, self.separator)
        self._parts.append(tokens.astype(np.int64))
        self._count += len(tokens)
        return self._cut()

    def held(self) -> int:
        return len(self._parts)

    def end(self) -> list[Tokens]:
        rest = np.concatenate([*self._parts, np.empty(0, dtype=np.int64)])
        self._parts.clear()
        self._count = 0
        if self.pad is None or not len(rest):
            return []
        return [np.concatenate([rest, np.full(self.length - len(rest), self.pad, dtype=np.int64)])]

    def _cut(self) -> list[Tokens]:
        if self._count < self.length:
            return []
        whole = np.concatenate(self._parts)
        made = len(whole) // self.length
        rest = whole[made * self.length :]
        self._count = len(rest)
        self._parts.clear()
        if len(rest):
            self._parts.append(rest)  # all of the newest input: what was before it is in samples
        return list(whole[: made * self.length].reshape(made, self.length))
