"""Text files whose lines are rows, plain or compressed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from pyarrow import fs

from raysgd_local.sources.compression import decompressed, is_compressed
from raysgd_local.sources.file_list import FileList
from raysgd_local.sources.line_index import BLANK_LINES, LineIndex, index_of
from raysgd_local.sources.reading import naming, read

_from_json = json.JSONDecoder().decode  # as json.loads, less what it looks up for each line
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class TextLines:
    r"""The lines of UTF-8 text files: a file is a shard, a line a row, without its end (`\n` or `\r\n`).

    `path`: a file, a directory (all its `.txt` and `.text` files, at any depth), or a glob. An uncompressed shard is
    scanned for newlines once in each process, when its rows are counted or when it is first opened in its middle.
    """

    KIND: str = "text files"
    ENDINGS: tuple[str, ...] = (".txt", ".text")
    reads_to_count = True
    _BLANK = True  # empty lines are rows

    def __init__(self, path: object, *, filesystem: fs.FileSystem | None = None) -> None:
        self.files = FileList(path, filesystem, self.KIND, self.ENDINGS)
        self._indices: dict[str, LineIndex] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_indices": {}}

    def shards(self) -> Sequence[str]:
        return self.files.names

    def rows(self, shard: str) -> int | None:
        """Count the rows; None for a compressed shard."""
        if is_compressed(shard):
            return None
        with naming(shard):
            return self._index(shard).rows

    def open(self, shard: str, start: int) -> Iterator[Any]:
        return read(shard, start, lambda: self._begin(shard, start), self._decode)

    def _begin(self, shard: str, start: int) -> tuple[int, Iterator[bytes]]:
        if start == 0 or is_compressed(shard):
            return 0, self._lines(shard, 0)
        first, offset = self._index(shard).before(start)
        return first, self._lines(shard, offset)

    def _index(self, shard: str) -> LineIndex:
        if shard not in self._indices:
            with self.files.location.open(shard) as file:
                self._indices[shard] = index_of(file, self._BLANK)
        return self._indices[shard]

    def _lines(self, shard: str, offset: int) -> Iterator[bytes]:
        with self.files.location.open(shard) as file, decompressed(file, shard) as lines:
            if offset:
                lines.seek(offset)
            kept = iter(lines) if self._BLANK else (line for line in lines if line not in BLANK_LINES)
            if offset == 0:
                yield from (line.removeprefix(_BYTE_ORDER_MARK) for line in islice(kept, 1))
            yield from kept

    def _decode(self, line: bytes) -> Any:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode()


class JsonLines(TextLines):
    """The lines of JSON-lines files: a file is a shard, and each line that is not empty a row, any JSON value.

    `path`: a file, a directory (all its `.jsonl`, `.ndjson` and `.json` files, at any depth), or a glob.
    """

    KIND, ENDINGS = "JSON-lines files", (".jsonl", ".ndjson", ".json")
    _BLANK = False

    def _decode(self, line: bytes) -> Any:
        return _from_json(line.decode())
