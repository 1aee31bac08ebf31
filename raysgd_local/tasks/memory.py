"""Data sets that fit in memory, read a whole batch at a time. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset


class InMemory(TensorDataset):
    """Tensors with one first dimension; a batch is one indexing operation a tensor.

    >>> data = InMemory(torch.arange(4.0), torch.arange(4))
    >>> data.__getitems__([3, 1])
    (tensor([3., 1.]), tensor([3, 1]))
    """

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, ...]:
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return tuple(tensor[chosen] for tensor in self.tensors)

    @staticmethod
    def collate(batch: Any) -> Any:
        """What `__getitems__` gives is a batch already."""
        return batch
