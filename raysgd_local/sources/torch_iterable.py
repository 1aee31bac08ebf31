"""Data sets that name their shards and open them, but don't know their lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from raysgd_local.errors import InputError
from raysgd_local.sources.reading import STORAGE, read


class TorchIterable:
    """A torch `IterableDataset`, or any object, with methods `shards()` and `open(shard, start)`.

    With a method `rows(shard)` beside them it is a source by itself.
    """

    def __init__(self, dataset: Any) -> None:
        if not names_shards(dataset):
            raise InputError("dataset", type(dataset).__name__, "a data set that names its shards", HOW_TO_NAME)
        self.dataset = dataset

    def shards(self) -> Sequence[str]:
        return tuple(self.dataset.shards())

    def rows(self, shard: str) -> int | None:  # noqa: ARG002
        return None

    def open(self, shard: str, start: int) -> Iterator[Any]:
        return read(shard, start, lambda: (start, iter(self.dataset.open(shard, start))), lambda row: row, STORAGE)


HOW_TO_NAME = (
    "rows that can't be named can't be dealt once each. Give the data set two methods: shards(), which returns the "
    "names of its parts (files, for example), and open(shard, start), which iterates over a part's rows from number "
    "start on; both the same on every worker"
)


def names_shards(dataset: Any) -> bool:
    return all(callable(getattr(dataset, name, None)) for name in ("shards", "open"))
