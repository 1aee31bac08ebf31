"""Samples that were read together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor


class Samples(Sequence[tuple[Tensor, ...]]):
    """Samples that lie in one tensor for each column, (B, …): a sequence of samples, for any `collate_fn`."""

    def __init__(self, columns: tuple[Tensor, ...]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, index: Any) -> Any:
        return tuple(column[index] for column in self.columns)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return zip(*self.columns, strict=True)
