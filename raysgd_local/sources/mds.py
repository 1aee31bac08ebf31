"""MosaicML's MDS files. The library `mosaicml-streaming` decodes samples."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import IO, Any

import numpy as np
from pyarrow import fs

from raysgd_local.errors import InputError, ShardError
from raysgd_local.sources.location import Location, absolute
from raysgd_local.sources.reading import read

INDEX = "index.json"
_ALLOWED = f"a directory with {INDEX} of MosaicML's MDS format"


class Mds:
    """The samples of a directory that `streaming.MDSWriter` wrote: a file is a shard, a row a dict.

    Lengths come from the directory's `index.json`. A compressed shard is decompressed in memory. Columns of pickles
    are refused, because reading one runs code that the file brings.
    """

    def __init__(self, path: object, *, filesystem: fs.FileSystem | None = None) -> None:
        self.path = absolute(path) if filesystem is None else str(path).rstrip("/")
        self.filesystem = filesystem

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "filesystem": self.filesystem}

    def shards(self) -> Sequence[str]:
        return tuple(self._entries)

    def rows(self, shard: str) -> int | None:
        return int(self._entry(shard)["samples"])

    def open(self, shard: str, start: int) -> Iterator[Any]:
        return read(shard, start, lambda: (start, self._samples(shard, start)), lambda row: row)

    def _samples(self, shard: str, start: int) -> Iterator[dict[str, Any]]:
        entry = self._entry(shard)
        reader = _reader(entry)
        with self._content(entry) as file:
            count = int.from_bytes(_whole(file, 4), "little")
            if count != entry["samples"]:
                raise ValueError(f"it has {count} samples, and {INDEX} says {entry['samples']}")
            offsets = np.frombuffer(_whole(file, 4 * (count + 1)), np.uint32).tolist()
            file.seek(offsets[min(start, count)])
            for begin, end in zip(offsets[start:-1], offsets[start + 1 :], strict=True):
                yield reader.decode_sample(_whole(file, end - begin))

    @contextmanager
    def _content(self, entry: dict[str, Any]) -> Iterator[IO[bytes]]:
        """A shard's uncompressed content; the file itself where it lies there uncompressed."""
        packed = entry["zip_data"]
        with self._location.open((packed or entry["raw_data"])["basename"]) as file:
            if packed is None:
                yield file
            else:
                from streaming.base.compression import decompress

                yield io.BytesIO(decompress(entry["compression"], file.read()))

    def _entry(self, shard: str) -> dict[str, Any]:
        if shard not in self._entries:
            raise ShardError(shard, 0, f"{INDEX} has no such shard")
        return self._entries[shard]

    @cached_property
    def _location(self) -> Location:
        return Location.at(self.path, self.filesystem)

    @cached_property
    def _entries(self) -> dict[str, dict[str, Any]]:
        """What `index.json` says of each shard, by name. Raises `InputError` where it can't be read."""
        try:
            with self._location.open(INDEX) as file:
                entries = json.load(file)["shards"]
            if any(entry["format"] != "mds" for entry in entries):
                raise ValueError("it lists shards of another format")
            if any(not isinstance(entry["samples"], int) or "zip_data" not in entry for entry in entries):
                raise ValueError("an entry lacks its number of samples, or its files")
            found = {entry["raw_data"]["basename"]: entry for entry in entries}
            if len(found) < len(entries):
                raise ValueError("it lists a shard twice")
            return found
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("path", self.path, _ALLOWED, f"{INDEX}: {error}") from error


def _reader(entry: dict[str, Any]) -> Any:
    """The library's reader of one shard. Raises `InputError` if the library is missing, or a column holds pickles."""
    try:
        from streaming.base.format import reader_from_json
    except ImportError as error:
        raise InputError("path", "an MDS data set", "with `pip install raysgd-local[mds]`", str(error)) from error
    try:
        reader = reader_from_json("", "", entry)
        reader.validate(allow_unsafe_types=False)
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        allowed = "version 2 of the format, with columns without pickles"
        raise InputError("path", "an MDS data set", allowed, f"{type(error).__name__}: {error}") from error
    return reader


def _whole(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise EOFError("the file ended too soon")
    return content
