"""Parquet files, read by pyarrow, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pyarrow import fs
from pyarrow import parquet as pq

from raysgd_local.errors import InputError
from raysgd_local.sources.file_list import FileList
from raysgd_local.sources.reading import naming, read

_BATCH_BYTES = 1 << 22  # of rows that are decoded together, in memory
_MOST_ROWS = 1024
_BUFFER = 1 << 18  # for each column, while a row group is read


class Parquet:
    """The rows of Parquet files: a file is a shard, a row a dict of Python values.

    `path`: a file, a directory (all its `.parquet` and `.pq` files, at any depth), or a glob. Lengths come from the
    files' footers. Opened in its middle, a shard is read from the beginning of a row group.
    """

    KIND, ENDINGS = "Parquet files", (".parquet", ".pq")

    def __init__(
        self,
        path: object,
        *,
        columns: Sequence[str] | None = None,  # all, in the file's order
        filesystem: fs.FileSystem | None = None,
    ) -> None:
        self.files = FileList(path, filesystem, self.KIND, self.ENDINGS, compressed=False)
        self.columns = None if columns is None else list(columns)

    def shards(self) -> Sequence[str]:
        return self.files.names

    def rows(self, shard: str) -> int | None:
        """Return the number of rows that the footer tells."""
        with naming(shard), self._file(shard) as file:
            return int(file.metadata.num_rows)

    def open(self, shard: str, start: int) -> Iterator[Any]:
        return read(shard, start, lambda: (start, self._rows(shard, start)), dict)

    def _rows(self, shard: str, start: int) -> Iterator[dict[str, Any]]:
        with self._file(shard) as file:
            self._check_columns(file)
            for group in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if start < rows:
                    yield from self._group(file, group, start)
                start = max(0, start - rows)

    def _group(self, file: pq.ParquetFile, group: int, start: int) -> Iterator[dict[str, Any]]:
        size = _batch_size(file.metadata.row_group(group))
        for batch in file.iter_batches(size, row_groups=[group], columns=self.columns, use_threads=False):
            if start < len(batch):
                yield from batch.slice(start).to_pylist()
            start = max(0, start - len(batch))

    @contextmanager
    def _file(self, shard: str) -> Iterator[pq.ParquetFile]:
        with (
            self.files.location.native(shard) as raw,
            pq.ParquetFile(raw, buffer_size=_BUFFER, pre_buffer=False) as file,
        ):
            yield file

    def _check_columns(self, file: pq.ParquetFile) -> None:
        names = file.schema_arrow.names
        for name in self.columns or ():
            if name not in names and name.partition(".")[0] not in names:  # `a.b`: a field of the column `a`
                raise InputError("columns", name, f"columns of the file: {', '.join(names)}")


def _batch_size(group: Any) -> int:
    """Return how many rows to decode together: the fewer, the larger they are."""
    fitting = _BATCH_BYTES * int(group.num_rows) // max(1, int(group.total_byte_size))
    return max(1, min(_MOST_ROWS, fitting))
