"""The data of one worker when each has only its own chunks (`data.access: local`)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset

from raysgd_local.algorithms.placement.table import chunk_bounds
from raysgd_local.control.data.chunk_transfer import Held, gifts
from raysgd_local.control.data.deal import Deal
from raysgd_local.control.messages import Order
from raysgd_local.errors import InputError
from raysgd_local.training.replica.plain_values import from_bytes, to_bytes
from raysgd_local.training.replica.transfer import broadcast_bytes
from raysgd_local.transport.contract import Transport

Chunk = list[torch.Tensor]
"""A chunk's rows of each of the data set's tensors."""


class ChunkStore:
    """This worker's chunks: at first read from the data set, later exchanged with other workers."""

    def __init__(self) -> None:
        self.held = Held()
        self.moved_bytes = 0  # received from others since `take_moved_bytes`
        self._chunks: dict[int, Chunk] = {}
        self._dataset: TensorDataset | None = None
        self._bounds: tuple[int, ...] = ()

    def restrict(self, dataset: Dataset[Any]) -> Dataset[Any]:
        """Return a view of a TensorDataset with this worker's chunks only. Raises `InputError` for other data sets."""
        if not isinstance(dataset, TensorDataset):
            allowed = "a torch TensorDataset, if data.access is local"
            hint = "the data of other data sets can't be cut into chunks and sent to other workers"
            raise InputError("dataset", type(dataset).__name__, allowed, hint)
        self._dataset = dataset
        return HeldSamples(self, dataset)

    def settle(self, transport: Transport, order: Order, rank: int) -> None:
        """Send and receive the chunks that the order moves. All members call it. Raises `TransportError`."""
        if isinstance(order.deal, Deal):
            self._bounds = chunk_bounds(order.deal.samples, order.deal.chunks)
        for gift in gifts(order):
            given = {str(c): self.chunk(c) for c in gift.chunks} if gift.source == rank else {}
            content = broadcast_bytes(transport, gift.source, to_bytes(given) if given else b"")
            for number in gift.received_by(rank):
                self._take(number, from_bytes(content)[str(number)])
        self.held = self.held.after(order, rank)
        self._chunks = {number: chunk for number, chunk in self._chunks.items() if number in self.held.chunks}

    def _take(self, number: int, chunk: Chunk) -> None:
        self._chunks[number] = chunk
        self.moved_bytes += sum(tensor.nbytes for tensor in chunk)

    def take_moved_bytes(self) -> int:
        moved, self.moved_bytes = self.moved_bytes, 0
        return moved

    def chunk(self, number: int) -> Chunk:
        """Return the data of one of this worker's chunks. Chunks from the data set are read when first needed."""
        if number not in self._chunks:
            if number not in self.held.chunks or self._dataset is None:
                raise RuntimeError(f"chunk {number} is not this worker's")  # a bug: the deal has it
            part = slice(self._bounds[number], self._bounds[number + 1])
            self._chunks[number] = [tensor[part].clone() for tensor in self._dataset.tensors]
        return self._chunks[number]

    def rows(self, positions: Sequence[int]) -> Chunk:
        """Return the samples at these positions of the training set, in the given order."""
        wanted = np.asarray(positions, dtype=np.int64)
        numbers = np.searchsorted(self._bounds, wanted, side="right") - 1
        parts, places = [], []
        for number in np.unique(numbers).tolist():
            here = np.flatnonzero(numbers == number)
            inside = torch.from_numpy(wanted[here] - self._bounds[number])
            parts.append([tensor[inside] for tensor in self.chunk(number)])
            places.append(here)
        order = torch.from_numpy(np.argsort(np.concatenate(places)))
        return [torch.cat(column)[order] for column in zip(*parts, strict=True)]


class HeldSamples(Dataset[Any]):
    """A view of a data set that reads only the worker's own chunks. Its items and batches have the original's form."""

    def __init__(self, store: ChunkStore, dataset: TensorDataset) -> None:
        self._store, self.dataset = store, dataset
        own = getattr(dataset, "collate", None)
        if own is not None:
            self.collate = own

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, positions: Sequence[int]) -> Any:
        part = copy.copy(self.dataset)
        part.tensors = tuple(self._store.rows(positions))
        whole = getattr(part, "__getitems__", None)
        places = list(range(len(positions)))
        return whole(places) if whole is not None else [part[place] for place in places]
