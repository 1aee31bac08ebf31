"""Load a worker's batches of a stream, in this process or in one of a DataLoader, and tell what was read.

Rows count as consumed when a step is taken on what was made of them, not when they are read ahead.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.deal import scaled
from raysgd_local.control.data.streams.coding import encode_table
from raysgd_local.control.data.streams.deal import StreamDeal, known_lengths
from raysgd_local.control.data.streams.lengths import UNKNOWN, Lengths, merged, with_lengths
from raysgd_local.control.data.streams.shards import Shards
from raysgd_local.control.member.events import StreamPosition
from raysgd_local.control.member.machine import Member
from raysgd_local.errors import InputError
from raysgd_local.sources.measuring import measured
from raysgd_local.sources.skipping import SkippingBad
from raysgd_local.sources.source import Source, shard_names
from raysgd_local.sources.transform import Step
from raysgd_local.training.data.loaded import Loaded
from raysgd_local.training.streams.across_epochs import list_batches
from raysgd_local.training.streams.batching import StreamBatch, batches
from raysgd_local.training.streams.rows import ListRows

Collate = Callable[[list[Any]], Any]

_SAME = "every worker needs the same shards, and so does a run that goes on from a checkpoint"

_MOST_COUNTED = 10_000  # shards whose lengths are asked for: the source may have to open each


class StreamedBatches:
    """This worker's batches of the open epoch of a stream, which may be dealt again at any boundary."""

    samples = 0  # their number is not known

    def __init__(
        self,
        source: Source,
        batch_size: int,
        steps: Sequence[Step],
        options: dict[str, Any],
        known: StreamedBatches | None = None,
    ) -> None:
        """`known`: of the epoch before; what it knows of the same source's shards is not asked again, nor forgotten."""
        self._source, self._batch_size, self._steps = source, batch_size, tuple(steps)
        self._collate: Collate = options.get("collate_fn") or default_collate
        self._loader_options = _loader_options(options)
        self._names = shard_names(source)
        same = known is not None and known._names == self._names
        self.shards: Shards = (
            known.shards if known is not None and same else Shards.of(self._names, _lengths(source, self._names))
        )
        self._dealt: tuple[int, int] = (known._dealt[0], -1) if known is not None and same else (0, 0)
        self._found: dict[int, int] = dict(known._found) if known is not None and same else {}
        self._cursor = 0  # behind the newest batch
        self._fetched = _none()
        self.notes: list[dict[str, Any]] = []  # shards that broke, until they are told
        self._skipped: set[str] = set()  # shards that broke

    def seat(self, member: Member, times: int) -> None:
        """Go on where the member stands in the present deal. `times`: how often the loop was reset to an earlier place.

        Raises `InputError` if the deal is not of this source.
        """
        order, rank = member.in_force, member.rank
        deal = order.deal
        if not isinstance(deal, StreamDeal) or deal.names != self.shards.names:
            raise InputError("dataset", self._told(), "the source that was dealt, the same on all workers", _SAME)
        start, scale = member.known.cursors[rank] + member.uncommitted.taken, order.program.scale_of(rank)
        self.deal(deal, rank, start, order.found, epoch=member.loop_epoch, scale=scale, times=times)

    def _told(self) -> str:
        names = self._names
        return f"{len(names)} shards, {names[0]} to {names[-1]}"

    def deal(
        self,
        deal: StreamDeal,
        rank: int,
        start: int,
        found: Lengths,
        *,
        epoch: int = 0,
        scale: float = 1.0,
        times: int = 0,
    ) -> None:
        """Continue with rank's list in `deal` from position `start`; drop what was read ahead.

        `found`: lengths that members have told. `epoch`: to the end of which the list is read, if it goes across
        epochs. `scale`: factor on the batch size. `times`: how often the loop was reset to an earlier position. If
        neither the deal nor `times` changed, nothing happens.
        """
        if (deal.number, times) == self._dealt:
            return
        same = deal.number == self._dealt[0]
        self.close()
        self._dealt = deal.number, times
        self._found = merged(self._found if same else {}, dict(found))
        read = partial(self._read, rank=rank, batch_size=scaled(self._batch_size, scale))
        self._fetched, self._cursor = list_batches(deal, start, epoch, read), start

    def _read(
        self, deal: StreamDeal, start: int, *, rank: int, batch_size: int
    ) -> Generator[StreamBatch, None, None]:
        """Return the batches of rank's list in a deal of one epoch."""
        lengths = with_lengths(known_lengths(deal), self._found)
        reader = _Reader(
            self._source, self._names, deal, rank, lengths, start, self._steps, batch_size, self._collate
        )
        return _fetched(reader, self._loader_options)

    def close(self) -> None:
        """Drop what was read ahead, and end the loader's process, which would otherwise live on."""
        self._fetched.close()
        self._fetched = _none()

    def next(self) -> Loaded | None:
        """Return the next batch, or without samples the list's end; None if the list is used up.

        Raises `ShardError`, and errors of transforms.
        """
        batch = next(self._fetched, None)
        if batch is None:
            return None
        self._found = merged(self._found, batch.found)
        self._note(batch.skipped)
        consumed, self._cursor = batch.cursor - self._cursor, batch.cursor
        return Loaded(batch.samples, batch.count, consumed, StreamPosition(batch.split, batch.last))

    def _note(self, skipped: Mapping[str, int | None]) -> None:
        for shard, rows in skipped.items():
            if shard not in self._skipped:
                self._skipped.add(shard)
                self.notes.append({"shard_skipped": shard, "rows": rows})

    def found(self) -> Lengths:
        """Return the lengths that this worker knows of shards that the deal does not say, and bounds."""
        return tuple(sorted(self._found.items()))

    def measure(self, wanted: Lengths) -> None:
        """Find out how long these shards are. Raises `ShardError`."""
        lengths = {shard: measured(self._source, self._names[shard], enough) for shard, enough in wanted}
        self._found = merged(self._found, lengths)
        known = with_lengths(self.shards.known_lengths(), self._found)
        self.shards = replace(self.shards, lengths=encode_table(np.maximum(known, UNKNOWN) + 1))


@dataclass
class _Failed:
    """An exception of a loader's process, carried over as it is: torch would make another one of it."""

    error: Exception
    trace: str


class _Reader(IterableDataset[Any]):
    """Reads the batches of a list. It is sent to a loader's process, if there is one."""

    def __init__(
        self,
        source: Source,
        names: Sequence[str],
        deal: StreamDeal,
        rank: int,
        lengths: Ints,
        start: int,
        steps: Sequence[Step],
        batch_size: int,
        collate: Collate,
    ) -> None:
        self._source, self._names, self._deal, self._rank = source, names, deal, rank
        self._lengths, self._start, self._steps = lengths, start, steps
        self._batch_size, self._collate = batch_size, collate

    def generator(self) -> torch.Generator:
        """Return a generator for the loader. Not the global one, which the model uses."""
        words = np.random.SeedSequence((self._deal.seed, self._deal.number, self._rank)).generate_state(1)
        return torch.Generator().manual_seed(int(words[0]))

    def __iter__(self) -> Iterator[StreamBatch | _Failed]:
        try:
            yield from self._batches()
        except Exception as error:
            if get_worker_info() is None:
                raise
            yield _Failed(error, traceback.format_exc())

    def _batches(self) -> Iterator[StreamBatch]:
        rows = ListRows(self._source, self._names, self._deal, self._rank, self._lengths, self._start)
        steps = copy.deepcopy(self._steps)  # what a packer keeps belongs to this reading of the list
        for batch in batches(rows, steps, self._batch_size, self._start):
            if batch.samples is not None:
                batch.samples = self._collate(batch.samples)
            if isinstance(self._source, SkippingBad):
                batch.skipped = self._source.skipped()
            yield batch


def _none() -> Generator[StreamBatch, None, None]:
    yield from ()


def _fetched(reader: _Reader, options: dict[str, Any]) -> Generator[StreamBatch, None, None]:
    for found in DataLoader(reader, batch_size=None, generator=reader.generator(), **options):
        if isinstance(found, _Failed):
            found.error.add_note(f"In a process of the DataLoader:\n{found.trace}")
            raise found.error
        yield found


def _lengths(source: Source, names: Sequence[str]) -> list[int | None]:
    if len(names) > _MOST_COUNTED or getattr(source, "reads_to_count", False):
        return [None] * len(names)
    return [source.rows(name) for name in names]


_READING = ("num_workers", "prefetch_factor", "multiprocessing_context", "timeout", "worker_init_fn")
"""DataLoader's options for the process that reads."""


def _loader_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the DataLoader's options for reading. Raises `InputError` for options that have no effect on a stream."""
    known = (*_READING, "collate_fn", "shuffle", "drop_last")
    for name in options:
        if name not in known:
            raise InputError(name, "given", f"for a stream one of {', '.join(known)}")
    if options.get("drop_last"):
        raise InputError("drop_last", True, "False", "every row is trained on once an epoch")
    reading = {name: options[name] for name in _READING if options.get(name) is not None}
    if reading.get("num_workers"):
        reading["num_workers"] = 1  # it reads the worker's rows in their order
    return reading
