"""Tar files in WebDataset's form: consecutive members with one name before the first dot are a row."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pyarrow import fs

from raysgd_local.sources.compression import decompressed, is_compressed
from raysgd_local.sources.file_list import FileList
from raysgd_local.sources.reading import read
from raysgd_local.sources.tar_headers import StrictInfo, key_and_extension, row_offsets

Row = tuple[str, list[tuple[str, bytes]]]  # its key; its members' extensions and contents
Member = tuple[tarfile.TarFile, tarfile.TarInfo]
_STEP = 256  # rows from one remembered offset to the next


class WebDatasetTar:
    """The samples of WebDataset's tar files: a file is a shard, a row a dict of `__key__` and the members' contents.

    As in `webdataset`, members are named `KEY.EXTENSION`, and consecutive ones of one key are a row with one entry for
    each extension. `path`: a file, a directory (all its `.tar` and `.tgz` files, at any depth), or a glob. Opened in
    its middle, an uncompressed local shard is read by its headers alone up to there.
    """

    KIND, ENDINGS = "tar files", (".tar", ".tgz")

    def __init__(
        self,
        path: object,
        *,
        decode: bool = True,  # text, numbers, JSON and NumPy arrays by their extensions; otherwise all are bytes
        filesystem: fs.FileSystem | None = None,
    ) -> None:
        self.files = FileList(path, filesystem, self.KIND, self.ENDINGS)
        self.decode = decode
        self._offsets: dict[str, list[int]] = {}  # of every so many rows, as far as a shard was read

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_offsets": {}}

    def shards(self) -> Sequence[str]:
        return self.files.names

    def rows(self, shard: str) -> int | None:  # noqa: ARG002
        """Return None: a tar file has no table of contents."""
        return None

    def open(self, shard: str, start: int) -> Iterator[Any]:
        return read(shard, start, lambda: self._begin(shard, start), self._decoded)

    def _begin(self, shard: str, start: int) -> tuple[int, Iterator[Row]]:
        if is_compressed(shard) or not self.files.location.local:
            return 0, _rows(self._members(shard), 0, start)
        row, offset = self._nearest(shard, start)
        return row, _rows(self._members(shard, offset), row, start)

    def _nearest(self, shard: str, start: int) -> tuple[int, int]:
        """Return the number and the offset of row `start`, or of the last one before it that is found quickly."""
        known = self._offsets.setdefault(shard, [0])
        block = min(start // _STEP, len(known) - 1)
        nearest = (block * _STEP, known[block])
        if start == nearest[0]:
            return nearest
        with self.files.location.open(shard) as file:
            for row, offset in enumerate(row_offsets(file, known[block]), nearest[0]):
                nearest = (row, offset)
                if row == len(known) * _STEP:
                    known.append(offset)
                if row == start:
                    break
        return nearest

    def _members(self, shard: str, offset: int | None = None) -> Iterator[Member]:
        """The archive's members, from a header on; without `offset` as a stream, which can't seek."""
        mode = "r|" if offset is None else "r:"
        with self.files.location.open(shard) as file, decompressed(file, shard) as content:
            if offset:
                content.seek(offset)
            with tarfile.open(fileobj=content, mode=mode, tarinfo=StrictInfo) as archive:  # type: ignore[call-overload]
                while (member := archive.next()) is not None:
                    yield archive, member
                    archive.members.clear()  # tarfile would keep them all

    def _decoded(self, row: Row) -> dict[str, Any]:
        key, members = row
        found: dict[str, Any] = {"__key__": key}
        for extension, content in members:
            if extension in found:
                raise ValueError(f"two members are named {key}.{extension}")
            found[extension] = _decode(extension, content) if self.decode else content
        return found


def _rows(members: Iterator[Member], row: int, start: int) -> Iterator[Row]:
    """Group members by their keys, from row number `row` on. Rows before `start` are left empty."""
    key, entries = "", list[tuple[str, bytes]]()
    for archive, member in members:
        named = key_and_extension(member.name) if member.isreg() else None
        if named is None:
            continue
        if named[0] != key:
            if key:
                yield key, entries
                row += 1
            key, entries = named[0], []
        if row >= start:
            content: Any = archive.extractfile(member)
            entries.append((named[1], content.read()))
    if key:
        yield key, entries


def _decode(extension: str, content: bytes) -> Any:
    decoder = _DECODERS.get(extension.rpartition(".")[2])
    return content if decoder is None else decoder(content)


_DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    **dict.fromkeys(("txt", "text", "transcript"), bytes.decode),
    **dict.fromkeys(("cls", "cls2", "class", "count", "index", "inx", "id"), int),
    **dict.fromkeys(("json", "jsn"), json.loads),
    "npy": lambda content: np.load(io.BytesIO(content), allow_pickle=False),
}
"""By a member's last extension. Pickles stay bytes: reading one runs code that the file brings."""
