"""Batches of any structure: how their samples are put together, and how they get to a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from raysgd_local.errors import InputError
from raysgd_local.training.data.structure import rebuilt

Collate = Callable[[Any], Any]


def collate_of(dataset: Dataset[Any]) -> Collate | None:
    """Return the data set's own `collate` function, if it has one; also behind `Subset` and `ConcatDataset`.

    Raises `InputError` for a `ConcatDataset` of data sets whose `collate` differs.
    """
    own: Collate | None = getattr(dataset, "collate", None)
    if own is not None:
        return own
    if isinstance(dataset, Subset):
        return collate_of(dataset.dataset)
    return _common_collate(dataset.datasets) if isinstance(dataset, ConcatDataset) else None


def _common_collate(parts: Sequence[Dataset[Any]]) -> Collate | None:
    """A ConcatDataset reads single samples, so the `collate` of parts that return whole batches doesn't count."""
    found = [None if _returns_batches(part) else collate_of(part) for part in parts]
    if len({getattr(one, "__func__", one) for one in found}) > 1:
        allowed = "data sets that have the same collate function"
        raise InputError("dataset", "ConcatDataset", allowed, "or give ctx.batches one for all, by collate_fn=")
    return found[0] if found else None


def _returns_batches(dataset: Any) -> bool:
    if isinstance(dataset, Subset):
        return _returns_batches(dataset.dataset)
    whole = getattr(dataset, "__getitems__", None)
    return whole is not None and len(dataset) > 0 and not isinstance(whole([0]), list)


def to_device(batch: Any, device: torch.device) -> Any:
    """Move every tensor in a batch to `device`: in mappings, lists, tuples, named tuples and dataclasses.

    Objects with a method `to` of their own, such as Hugging Face's `BatchEncoding`, move themselves.
    """
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if callable(getattr(batch, "to", None)) and not isinstance(batch, type):
        return batch.to(device)
    return rebuilt(batch, lambda part: to_device(part, device))
