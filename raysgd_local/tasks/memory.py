"""Data sets in memory, indexed by whole batches. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import TensorDataset, default_collate

from raysgd_local.training.data.samples import Samples


class InMemory(TensorDataset):
    """A data set of tensors with equal first dimensions. Reading a batch takes one indexing operation per tensor.

    >>> data = InMemory(torch.arange(4.0), torch.arange(4))
    >>> data.collate(data.__getitems__([3, 1]))
    (tensor([3., 1.]), tensor([3, 1]))
    """

    draws_nothing = True  # no random numbers, so batches need no seeds

    def __getitems__(self, indices: Sequence[int]) -> Samples:
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return Samples(tuple(tensor[chosen] for tensor in self.tensors))

    @staticmethod
    def collate(batch: Any) -> Any:
        """Return the batch: `__getitems__` read it whole already."""
        if isinstance(batch, Samples):
            return batch.columns
        return default_collate(batch) if isinstance(batch, list) else batch
