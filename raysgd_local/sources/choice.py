"""Choose the source for what a user gives: a path, another library's data set, or an object of one's own."""

from __future__ import annotations

import os
from typing import Any

from pyarrow import fs

from raysgd_local.errors import InputError
from raysgd_local.sources.file_list import FileList, ends_with
from raysgd_local.sources.huggingface import HuggingFace
from raysgd_local.sources.mds import INDEX, Mds
from raysgd_local.sources.parquet import Parquet
from raysgd_local.sources.ray_data import RayData
from raysgd_local.sources.source import Source
from raysgd_local.sources.text import JsonLines, TextLines
from raysgd_local.sources.torch_iterable import HOW_TO_NAME, TorchIterable, names_shards
from raysgd_local.sources.webdataset import WebDatasetTar

_OF_FILES: tuple[type[TextLines | Parquet | WebDatasetTar], ...] = (TextLines, JsonLines, Parquet, WebDatasetTar)


def files(path: object, *, filesystem: fs.FileSystem | None = None) -> Source:
    """Return the source for files, by their endings. Raises `InputError` for no files, or files of several kinds.

    `path`: a file, a directory, or a glob, on this machine or as a URI of `pyarrow.fs`.
    """
    chosen = _by_ending(os.fspath(path)) if isinstance(path, str | os.PathLike) else None
    source: Source = (chosen or _by_content(path, filesystem))(path, filesystem=filesystem)
    return source


def as_source(dataset: Any) -> Source | None:
    """Return the source for what `ctx.batches` gets; None for a map-style data set, which needs none.

    Raises `InputError` for a stream whose shards can't be named.
    """
    if isinstance(dataset, Source):
        return dataset
    if names_shards(dataset):
        return TorchIterable(dataset)
    if isinstance(dataset, str | os.PathLike):
        return files(dataset)
    kinds = _kinds(dataset)
    if is_ray_data(dataset):
        if ("ray", "MaterializedDataset") not in kinds:
            allowed = (
                "one that is computed once for all workers: LocalSGDTrainer(datasets={…}), or ds.materialize()"
            )
            raise InputError("dataset", "a data set of Ray Data that is not computed", allowed)
        return RayData(dataset)
    if kinds & {("datasets", "IterableDataset"), ("datasets", "IterableDatasetDict")}:
        return HuggingFace(dataset)
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        return None
    allowed = "a map-style data set, or a source: see raysgd_local.sources"
    raise InputError("dataset", type(dataset).__name__, allowed, HOW_TO_NAME)


def is_ray_data(dataset: Any) -> bool:
    """Whether this is a `ray.data.Dataset`, computed or not."""
    return ("ray", "Dataset") in _kinds(dataset)


def _kinds(dataset: Any) -> set[tuple[str, str]]:
    """The packages and names of the object's classes."""
    return {(one.__module__.partition(".")[0], one.__name__) for one in type(dataset).__mro__}


def _by_ending(name: str) -> Any:
    return next((kind for kind in _OF_FILES if ends_with(name, kind.ENDINGS)), None)


def _by_content(path: object, filesystem: fs.FileSystem | None) -> Any:
    """The kind of a directory's files. Files with other endings don't count."""
    found = FileList(path, filesystem, "training data")
    if INDEX in found.names:
        return Mds
    kinds = {kind.KIND: kind for kind in map(_by_ending, found.names) if kind is not None}
    if len(kinds) == 1:
        return next(iter(kinds.values()))
    allowed = f"files of one kind: {', '.join(f'{kind.KIND} ({kind.ENDINGS[0]})' for kind in _OF_FILES)}"
    raise InputError("path", found.path, allowed, f"found {' and '.join(sorted(kinds)) or 'none of them'}")
