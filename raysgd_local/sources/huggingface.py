"""Streams of Hugging Face's `datasets`. Its map-style `Dataset` is a data set by itself, and needs no source."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raysgd_local.errors import InputError, ShardError
from raysgd_local.sources.reading import STORAGE, read

_BATCH = 32  # rows that are read together
_STEP = 1024  # rows from one remembered state to the next
_STATES = 8  # remembered for each shard


class HuggingFace:
    """A `datasets.IterableDataset`: its shards (usually its files) are shards, its examples rows.

    The order in which `shuffle` puts examples is the same in every epoch. A shard that is opened again in the same
    process is read from a state that was remembered on the way, unless there is a shuffle buffer; otherwise, from its
    beginning.
    """

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, Mapping):
            raise InputError("dataset", sorted(dataset), 'one split, as in dataset["train"]')
        if getattr(dataset, "_distributed", None) is not None:
            hint = "workers are dealt their rows, and need the whole data set: leave out split_dataset_by_node"
            raise InputError("dataset", "one node's part of it", "the whole data set", hint)
        self.dataset = dataset
        self._shuffled = _has_buffer(getattr(dataset, "_ex_iterable", None))
        self._states: dict[str, deque[tuple[int, Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_states": {}}

    def shards(self) -> Sequence[str]:
        count = self.dataset.num_shards
        return tuple(f"shard-{number:05}-of-{count:05}" for number in range(count))

    def rows(self, shard: str) -> int | None:  # noqa: ARG002
        return None

    def open(self, shard: str, start: int) -> Iterator[Any]:
        from datasets.exceptions import DatasetsError

        unreadable = (*STORAGE, DatasetsError)
        return read(shard, start, lambda: self._begin(shard, start), lambda row: row, unreadable)

    def _begin(self, shard: str, start: int) -> tuple[int, Iterator[Any]]:
        names = list(self.shards())
        if shard not in names:
            raise ShardError(shard, start, f"the data set's shards are {names[0]} to {names[-1]}")
        part = self.dataset.shard(num_shards=len(names), index=names.index(shard))
        row, state = max(
            (one for one in self._states.get(shard, ()) if one[0] <= start), default=(0, None), key=_row
        )
        if state is not None:
            part.load_state_dict(state)
        return row, self._examples(shard, part, row)

    def _examples(self, shard: str, part: Any, row: int) -> Iterator[Any]:
        """By `iter`, not `__iter__`: in a loader's process that would read only a part of the shards."""
        remembered = self._states.setdefault(shard, deque(maxlen=_STATES))
        for batch in part.iter(batch_size=_BATCH):
            examples = _examples_of(batch)
            yield from examples
            row += len(examples)
            if not self._shuffled and row >= _STEP + (remembered[-1][0] if remembered else 0):
                remembered.append((row, part.state_dict()))


def _row(remembered: tuple[int, Any]) -> int:
    return remembered[0]


def _examples_of(batch: Any) -> list[dict[str, Any]]:
    if not isinstance(batch, Mapping):
        allowed = "a format of single values: None, 'torch', 'numpy'"
        raise InputError("dataset", f"a format that reads {type(batch).__name__}", allowed, "see with_format")
    size = len(next(iter(batch.values()))) if batch else 0
    return [{name: values[number] for name, values in batch.items()} for number in range(size)]


def _has_buffer(examples: Any) -> bool:
    """Whether examples pass through a shuffle buffer, which a state doesn't contain."""
    if type(examples).__name__ == "BufferShuffledExamplesIterable":
        return True
    inner = [getattr(examples, "ex_iterable", None), *getattr(examples, "ex_iterables", ())]
    return any(_has_buffer(one) for one in inner if one is not None)
