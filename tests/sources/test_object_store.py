"""Sources of files in an object store: the same rows as on a disk."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator

import pyarrow as pa
import pytest
from object_store import ObjectStore, object_store
from pyarrow import fs
from pyarrow import parquet as pq
from shards import broken_at, check_starts

from raysgd_local.errors import InputError
from raysgd_local.sources import files, shard_names


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("store") / "log") as store:
        yield store


def put(store: ObjectStore, path: str, content: bytes) -> None:
    filesystem, where = fs.FileSystem.from_uri(store.place(path))
    with filesystem.open_output_stream(where, compression=None) as file:
        file.write(content)


def archive(rows: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for row in range(rows):
            info = tarfile.TarInfo(f"{row:03}.cls")
            info.size = 3
            tar.addfile(info, io.BytesIO(f"{row:03}".encode()))
    return file.getvalue()


def test_text_parquet_and_tar_files_are_read_from_anywhere(store):
    lines = [f"line {number}" for number in range(500)]
    table = pa.table({"id": range(500)})
    parquet = io.BytesIO()
    pq.write_table(table, parquet, row_group_size=100)
    put(store, "text/a.txt", "\n".join(lines).encode())
    put(store, "text/deep/b.txt.gz", gzip.compress("\n".join(lines).encode()))
    put(store, "parquet/a.parquet", parquet.getvalue())
    put(store, "tar/a.tar", archive(50))
    assert check_starts(files(store.place("text"))) == {"a.txt": lines, "deep/b.txt.gz": lines}
    assert check_starts(files(store.place("parquet"))) == {"a.parquet": table.to_pylist()}
    assert [row["cls"] for row in check_starts(files(store.place("tar/a.tar")))["a.tar"]] == list(range(50))


def test_globs_are_looked_up_there_and_no_file_is_refused(store):
    for name in ("globs/x1.txt", "globs/x2.txt", "globs/y.txt", "globs/deep/x3.txt"):
        put(store, name, b"one\n")
    assert shard_names(files(store.place("globs/x*.txt"))) == ("x1.txt", "x2.txt")
    assert shard_names(files(store.place("globs/**/x*.txt"))) == ("deep/x3.txt", "x1.txt", "x2.txt")
    for path in ("globs/z*.txt", "nothing", "globs/z.txt"):
        with pytest.raises(InputError, match="path: "):
            files(store.place(path)).shards()


def test_an_object_that_is_gone_is_named(store):
    put(store, "gone/a.txt", b"one\n")
    source = files(store.place("gone"))
    assert shard_names(source) == ("a.txt",)
    filesystem, where = fs.FileSystem.from_uri(store.place("gone/a.txt"))
    filesystem.delete_file(where)
    broken_at(source, "a.txt")
