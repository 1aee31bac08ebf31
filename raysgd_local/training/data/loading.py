"""Load a worker's dealt samples in batches, through torch's DataLoader.

Samples count as consumed when a step is taken on them, not when they are fetched.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from raysgd_local.algorithms.placement import ChunkPlacement
from raysgd_local.algorithms.placement.table import chunk_bounds
from raysgd_local.control.data.deal import Deal, dealt_batches, scaled
from raysgd_local.control.member.machine import Member
from raysgd_local.errors import InputError
from raysgd_local.training.data.augmentation import SeededCollate, SeededSamples, draws_nothing
from raysgd_local.training.data.batches import collate_of
from raysgd_local.training.data.loaded import Loaded

_Indices = tuple[int, list[int]]
"""A batch: its epoch, and the indices of its samples."""


class DealtBatches:
    """This worker's batches of the open epoch, which may be dealt again at any boundary."""

    shards: None = None  # only streams have some

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        seed: int,
        options: dict[str, Any],
        placement: ChunkPlacement | None = None,
    ) -> None:
        self.dataset, self.samples = dataset, not_empty(dataset, "training set", "ctx.batches")
        self._batch_size, self._seed, self._options = batch_size, seed, _checked(options)
        self._order = _Order(dataset, placement or ChunkPlacement(), seed)
        self._dealt, self._rank = (0, 0), 0
        self._left: list[_Indices] = []  # batches that were not returned yet
        self._deaths = 0  # how often in a row loader processes died over the next batch
        self.notes: list[dict[str, Any]] = []  # deaths of loader processes, until they are told
        self._fetched = self._fetch([])

    def seat(self, member: Member, times: int) -> None:
        """Go on where the member stands in the present deal. `times`: how often the loop was reset to an earlier place.

        Raises `InputError` if the deal is not of this data set.
        """
        order, state, rank = member.in_force, member.known, member.rank
        deal = order.deal
        if not isinstance(deal, Deal) or deal.samples != self.samples:
            allowed = "the stream that was dealt"
            if isinstance(deal, Deal):
                allowed = f"the {deal.samples} samples over which the open epoch was dealt"
            hint = "every worker needs the same data set, and so does a run that goes on from a checkpoint"
            if state.epochs:
                hint += "; for a set that changes from epoch to epoch choose algorithm.rounds: within-epochs"
            raise InputError("training set", f"{self.samples} samples", allowed, hint)
        start = state.cursors[rank] + member.uncommitted.taken
        self.deal(deal, rank, start, member.loop_epoch, scale=order.program.scale_of(rank), times=times)

    def deal(self, deal: Deal, rank: int, start: int, epoch: int, *, scale: float = 1.0, times: int = 0) -> None:
        """Continue with rank's list in `deal`, from position `start` to the end of `epoch`; drop batches fetched ahead.

        `scale`: factor on the batch size. `times`: how often the loop was reset to an earlier position. If neither
        the deal nor `times` changed, nothing happens.
        """
        if (deal.number, times) == self._dealt:
            return
        self.close()
        self._dealt, self._rank = (deal.number, times), rank
        batches = dealt_batches(deal, rank, start, epoch, scaled(self._batch_size, scale))
        self._left = [(of, self._order.samples(positions, deal).tolist()) for of, positions in batches]
        self._fetched = self._fetch(self._left)

    def _fetch(self, batches: list[_Indices]) -> Generator[tuple[Any, int], None, None]:
        for epoch, group in groupby(batches, key=itemgetter(0)):
            yield from self._of_epoch([indices for _, indices in group], epoch)

    def _of_epoch(self, batches: list[list[int]], epoch: int) -> Iterator[tuple[Any, int]]:
        collate = self._options.get("collate_fn") or collate_of(self.dataset) or default_collate
        plain = draws_nothing(self.dataset) and "collate_fn" not in self._options
        # Not the global generator, which the model uses. The DataLoader seeds its processes from this one.
        words = np.random.SeedSequence((self._seed, self._dealt[0], self._rank)).generate_state(1)
        generator = torch.Generator().manual_seed(int(words[0]))
        loader = DataLoader(
            SeededSamples(self.dataset, self._seed, epoch),
            batch_sampler=batches,
            generator=generator,
            **{**self._options, "collate_fn": SeededCollate(collate, self._seed, epoch, plain)},
        )
        for batch, positions in zip(_processes_of(loader), batches, strict=True):
            yield batch, len(positions)

    def next(self) -> Loaded | None:
        """Return the next batch, or None if the list is used up.

        If a loader process was killed, fetch the batch again with other processes; raise its error if that recurs.
        """
        while True:
            try:
                found = next(self._fetched, None)
            except RuntimeError as error:
                if not _killed(error) or self._deaths + 1 >= _DEATHS:
                    raise
                self._deaths += 1
                self.notes.append({"loader_restarted": str(error)})
                self._fetched = self._fetch(self._left)
                continue
            self._deaths, self._left = 0, self._left[1:]
            return None if found is None else Loaded(found[0], found[1], found[1])

    def close(self) -> None:
        """Drop batches fetched ahead, and end the loader's processes, which would otherwise live on."""
        self._fetched.close()


_DEATHS = 3
"""Give up after so many deaths of loader processes over one batch: its samples, or the memory, are the cause."""


def _killed(error: RuntimeError) -> bool:
    """Whether a loader's process died. An exception in one has another text, with its traceback."""
    return str(error).startswith("DataLoader worker (pid")


def _processes_of(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the loader's processes. Their deaths are noticed when a batch is missing.

    In a program's main thread torch would raise them wherever the loop is just then, in a collective for example.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if before is not None:
        signal.signal(signal.SIGCHLD, before)
    return batches


def not_empty(dataset: Any, what: str, call: str) -> int:
    """Return the number of samples. Raises `InputError` for none, which would train or evaluate on nothing."""
    size = len(dataset)
    if size == 0:
        hint = f"{call} was given an empty one: a wrong path, or a filter that leaves nothing?"
        raise InputError(
            what, f"{type(dataset).__name__} of 0 samples", "a data set with at least one sample", hint
        )
    return size


class _Order:
    """Maps positions of the training set to sample indices, if the placement orders samples by label."""

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
    """Return all samples' labels, (n,). Raises `InputError` for a data set that doesn't expose them."""
    if isinstance(dataset, Subset):
        return _labels(dataset.dataset)[np.asarray(dataset.indices)]
    targets = dataset.tensors[-1] if isinstance(dataset, TensorDataset) else getattr(dataset, "targets", None)
    labels = None if targets is None else np.asarray(targets)
    if labels is None or labels.ndim != 1:
        allowed = "a data set with one label per sample: a TensorDataset, or one with .targets"
        raise InputError("dataset", type(dataset).__name__, allowed, "algorithm.placement needs the labels")
    return labels


_DEALT = "each worker is dealt its own samples in each epoch, in a random order that depends on the seed"
_AS_DEALT: dict[str, tuple[tuple[Any, ...], str]] = {
    "shuffle": ((True, None), _DEALT),
    "sampler": ((None,), _DEALT),
    "batch_sampler": ((None,), _DEALT),
    "generator": ((None,), _DEALT),
    "drop_last": (
        (False,),
        "every sample is trained on once an epoch; a short last batch is joined to the one before",
    ),
}
"""DataLoader's options that choose or order samples: the values that say how it is here in any case, and why."""


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Return the DataLoader options without those that choose or order samples. Raises `InputError` if one asks for
    another choice than that of the deal.
    """
    for name, value in options.items():
        if name in _AS_DEALT:
            same, why = _AS_DEALT[name]
            if not any(value is one for one in same):
                shown = value if isinstance(value, bool) else type(value).__name__
                raise InputError(name, shown, " or ".join(map(str, same)), why)
    return {name: value for name, value in options.items() if name not in _AS_DEALT}
