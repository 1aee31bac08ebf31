"""Random augmentation that depends on (seed, epoch, index) alone: not on the worker, the process or the deal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from raysgd_local.errors import UsageError
from raysgd_local.training.data.chunk_store import HeldSamples
from raysgd_local.training.data.samples import Samples
from raysgd_local.training.replica.rng import (
    processor_generators_kept,
    processor_generators_mark,
    seed_processor_generators,
)


@dataclass(frozen=True)
class Drawn:
    """A batch before it is collated."""

    indices: tuple[int, ...]
    samples: Any  # a list of samples, or a whole batch


class SeededSamples(Dataset[Any]):
    """A data set whose random augmentation of a sample depends only on (seed, epoch, index).

    So a sample is the same whichever worker or process fetches it, and if it is fetched again. A data set with
    `__getitems__` is asked for whole batches as long as it draws no random numbers, and then for single samples.
    """

    def __init__(self, dataset: Dataset[Any], seed: int, epoch: int) -> None:
        self.dataset, self.seed, self.epoch = dataset, seed, epoch
        self._plain = draws_nothing(dataset)
        self._whole = _reads_batches(dataset)

    def __getitems__(self, indices: Sequence[int]) -> Drawn:
        return Drawn(tuple(indices), self._samples(indices))

    def _samples(self, indices: Sequence[int]) -> Any:
        if self._plain:
            return _fetch(self.dataset, indices)
        with processor_generators_kept():
            if self._whole:
                before = processor_generators_mark()
                found = _fetch(self.dataset, indices)
                if processor_generators_mark() == before:
                    return found
                self._whole = False
            return self._one_by_one(indices)

    def _one_by_one(self, indices: Sequence[int]) -> Any:
        if not hasattr(self.dataset, "__getitems__"):
            return [self._seeded(index, self.dataset.__getitem__) for index in indices]
        whole = self.dataset.__getitems__
        return _joined([self._seeded(index, lambda index: whole([index])) for index in indices])

    def _seeded(self, index: int, read: Callable[[int], Any]) -> Any:
        seed_processor_generators(self.seed, self.epoch, index)
        return read(index)


@dataclass(frozen=True)
class SeededCollate:
    """Collates batches of `SeededSamples`: what it draws (masks, mixtures of samples) depends on the batch alone."""

    collate: Callable[[Any], Any]
    seed: int
    epoch: int
    plain: bool  # it draws nothing

    def __call__(self, batch: Drawn) -> Any:
        if self.plain or self.collate is default_collate:
            return self.collate(batch.samples)
        with processor_generators_kept():
            number = crc32(np.asarray(batch.indices, dtype=np.int64).tobytes())
            seed_processor_generators(self.seed, self.epoch, number, len(batch.indices))
            return self.collate(batch.samples)


def draws_nothing(dataset: Any) -> bool:
    """Whether reading draws no random numbers for certain: a `TensorDataset`, or a class that says `draws_nothing`.

    Not a subclass of such a class: it may read in another way.
    """
    while type(dataset) in (Subset, HeldSamples):
        dataset = dataset.dataset
    return type(dataset) is TensorDataset or bool(vars(type(dataset)).get("draws_nothing", False))


def _reads_batches(dataset: Any) -> bool:
    while type(dataset) is Subset:  # it has `__getitems__` in any case
        dataset = dataset.dataset
    return hasattr(dataset, "__getitems__")


def _fetch(dataset: Any, indices: Sequence[int]) -> Any:
    whole = getattr(dataset, "__getitems__", None)
    return whole(indices) if whole is not None else [dataset[index] for index in indices]


def _joined(parts: list[Any]) -> Any:
    """Return the samples of lists of one sample each, or the batch of batches of one sample each."""
    if all(isinstance(part, list | Samples) and len(part) == 1 for part in parts):
        return [part[0] for part in parts]
    return _concatenated(parts)


def _concatenated(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(parts)
    if isinstance(first, np.ndarray):
        return np.concatenate(parts)
    if isinstance(first, Mapping):
        return {key: _concatenated([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        columns = [_concatenated(list(column)) for column in zip(*parts, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else type(first)(columns)
    if isinstance(first, list):
        return [_concatenated(list(column)) for column in zip(*parts, strict=True)]
    raise UsageError(
        f"__getitems__ draws random numbers and returns whole batches of type {type(first).__name__}, which can't be "
        "put together from single samples: let it return a list of samples"
    )
