"""Batches of what a worker is dealt, through torch's DataLoader; what is stepped on counts, not what is fetched."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, default_collate

from raysgd_local.algorithms.placement import ChunkPlacement
from raysgd_local.algorithms.placement.table import chunk_bounds
from raysgd_local.control.data.deal import Deal, batch_bounds, own_list, scaled
from raysgd_local.errors import InputError
from raysgd_local.training.replica.rng import processor_generators_kept, seed_processor_generators

Collate = Callable[[Any], Any]


def collate_of(dataset: Dataset[Any]) -> Collate | None:
    """The data set's own way from fetched items to a batch, if it has one."""
    own: Collate | None = getattr(dataset, "collate", None)
    return own


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor in it on `device`."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


class SeededSamples(Dataset[Any]):
    """A data set whose random augmentation of a sample depends on (seed, epoch, index) alone.

    So it does not matter which worker draws the sample, in which process, or whether it is drawn again. A data set
    that is fetched in whole batches (`__getitems__`) is taken to draw no random numbers of its own.
    """

    def __init__(self, dataset: Dataset[Any], seed: int, epoch: int) -> None:
        self.dataset, self.seed, self.epoch = dataset, seed, epoch
        self._plain = _draws_nothing(dataset)

    def __getitems__(self, indices: Sequence[int]) -> Any:
        if self._plain:
            return _fetch(self.dataset, indices)
        with processor_generators_kept():
            return [self._item(index) for index in indices]

    def _item(self, index: int) -> Any:
        seed_processor_generators(self.seed, self.epoch, index)
        return self.dataset[index]


def _draws_nothing(dataset: Dataset[Any]) -> bool:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return isinstance(dataset, TensorDataset) or hasattr(dataset, "__getitems__")


def _fetch(dataset: Dataset[Any], indices: Sequence[int]) -> Any:
    whole = getattr(dataset, "__getitems__", None)
    return whole(indices) if whole is not None else [dataset[index] for index in indices]


class DealtBatches:
    """This worker's batches of the open epoch, which may be dealt anew at any boundary.

    `position` counts what the loop was given of the present list. Each batch comes with its number of positions.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        seed: int,
        options: dict[str, Any],
        placement: ChunkPlacement | None = None,
    ) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise InputError(
                "dataset",
                type(dataset).__name__,
                "a map-style data set with __len__ and __getitem__",
                "samples of an IterableDataset can't be dealt or accounted for",
            )
        self.dataset, self.samples = dataset, len(dataset)
        self._batch_size, self._seed, self._options = batch_size, seed, _checked(options)
        self._order = _Order(dataset, placement or ChunkPlacement(), seed)
        self._dealt = (0, 0)
        self._fetched = self._fetch([], 0)

    def deal(self, deal: Deal, rank: int, start: int, *, scale: float = 1.0, times: int = 0) -> None:
        """Go on in `deal` from position `start` of rank's list, in batches `scale` times as large as they would be;
        what was fetched ahead is dropped.

        Nothing happens where that deal goes on already, and the loop was put back `times` times before.
        """
        if (deal.number, times) == self._dealt:
            return
        self.close()
        self._dealt = deal.number, times
        positions = self._order.samples(own_list(deal, rank), deal)
        bounds = batch_bounds(len(positions), start, scaled(self._batch_size, scale))
        self._fetched = self._fetch([positions[a:b].tolist() for a, b in bounds], deal.epoch)

    def _fetch(self, batches: list[list[int]], epoch: int) -> Generator[tuple[Any, int], None, None]:
        if not batches:
            return
        loader = DataLoader(
            SeededSamples(self.dataset, self._seed, epoch),
            batch_sampler=batches,
            generator=torch.Generator(),  # the global one belongs to the model: its stream must not depend on us
            **{"collate_fn": collate_of(self.dataset) or default_collate, **self._options},
        )
        for batch, positions in zip(loader, batches, strict=True):
            yield batch, len(positions)

    def next(self) -> tuple[Any, int] | None:
        """The next batch and its size, or None where the list is used up."""
        return next(self._fetched, None)

    def close(self) -> None:
        """Drop what was fetched ahead, and end the loader's processes: left alone they outlive their use."""
        self._fetched.close()


class _Order:
    """Which sample lies at which position of the training set, where a placement says so."""

    def __init__(self, dataset: Dataset[Any], placement: ChunkPlacement, seed: int) -> None:
        self._dataset, self._placement, self._seed = dataset, placement, seed
        self._orders = type(placement).order is not ChunkPlacement.order
        self._labels = _labels(dataset) if self._orders else None
        self._known: tuple[int, Any] = (0, None)

    def samples(self, positions: Any, deal: Deal) -> Any:
        if self._labels is None:
            return positions
        if self._known[0] != deal.chunks:
            bounds = chunk_bounds(deal.samples, deal.chunks)
            self._known = deal.chunks, self._placement.order(self._labels, bounds, self._seed)
        order = self._known[1]
        return positions if order is None else order[positions]


def _labels(dataset: Dataset[Any]) -> Any:
    """All samples' labels, (n,). Raises `InputError` for a data set that does not show them."""
    if isinstance(dataset, Subset):
        return _labels(dataset.dataset)[np.asarray(dataset.indices)]
    targets = dataset.tensors[-1] if isinstance(dataset, TensorDataset) else getattr(dataset, "targets", None)
    labels = None if targets is None else np.asarray(targets)
    if labels is None or labels.ndim != 1:
        allowed = "a data set with one label a sample: a TensorDataset, or one with .targets"
        raise InputError("dataset", type(dataset).__name__, allowed, "algorithm.placement needs the labels")
    return labels


_NOT_OURS = {"batch_sampler", "sampler", "shuffle", "drop_last", "batch_size", "generator"}


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """DataLoader options pass through but for those that say which samples come when."""
    for name in options:
        if name in _NOT_OURS:
            raise InputError(
                name, options[name], "DataLoader options other than which samples come when", "they are dealt"
            )
    return dict(options)
