"""Lines of text and JSON: every row from any start, whatever the file looks like."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from functools import partial

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shards import broken_at, check_starts

from raysgd_local.sources import JsonLines, TextLines, files, line_index

PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": partial(lzma.compress, preset=0),
    ".zst": lambda content: pa.Codec("zstd").compress(content, asbytes=True),
}
MANY = [f"row {number} τ" * (number % 7) for number in range(3000)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So small files have many entries in their index."""
    monkeypatch.setattr(line_index, "_BLOCK", 512)


def test_lines_are_rows_in_order_and_can_be_read_from_anywhere(tmp_path):
    (tmp_path / "b.txt").write_text("\n".join(MANY), encoding="utf-8")
    (tmp_path / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    source = TextLines(tmp_path)
    assert list(source.shards()) == ["a.txt", "b.txt"]
    assert check_starts(source, starts=30) == {"a.txt": ["one", "two"], "b.txt": MANY}
    assert [source.rows(shard) for shard in source.shards()] == [2, len(MANY)]


def test_json_lines_are_any_values_and_empty_lines_are_no_rows(tmp_path):
    values = [{"id": number, "text": "é" * (number % 5)} for number in range(500)]
    text = "\n\n".join(json.dumps(value) for value in values) + "\r\n\r\n\n"
    (tmp_path / "a.jsonl").write_bytes(text.encode())
    (tmp_path / "b.jsonl").write_text('1\n"two"\n[3]\nnull', encoding="utf-8")
    source = JsonLines(tmp_path)
    assert check_starts(source, starts=30) == {"a.jsonl": values, "b.jsonl": [1, "two", [3], None]}
    assert [source.rows(shard) for shard in source.shards()] == [500, 4]


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("kind", [TextLines, JsonLines])
def test_compressed_files_are_read_through(tmp_path, kind, ending):
    rows = MANY if kind is TextLines else [{"id": number} for number in range(3000)]
    lines = rows if kind is TextLines else map(json.dumps, rows)
    name = f"a{kind.ENDINGS[0]}{ending}"
    (tmp_path / name).write_bytes(PACKERS[ending]("\n".join(lines).encode()))
    source = kind(tmp_path)
    assert check_starts(source, starts=3) == {name: rows}
    assert source.rows(name) is None


@pytest.mark.parametrize("ending", PACKERS)
def test_parts_that_were_packed_one_by_one_and_joined_are_one_file(tmp_path, ending):
    pack = PACKERS[ending]
    (tmp_path / f"a.txt{ending}").write_bytes(pack(b"one\ntw") + pack(b"o\nthree\n"))
    assert check_starts(TextLines(tmp_path)) == {f"a.txt{ending}": ["one", "two", "three"]}


@pytest.mark.parametrize("ending", PACKERS)
def test_a_compressed_file_that_is_cut_off_is_named_with_the_row(tmp_path, ending):
    content = "\n".join(f"{number} {number**9}" for number in range(30_000)).encode()
    packed = PACKERS[ending](content)
    (tmp_path / f"a.txt{ending}").write_bytes(packed[: len(packed) // 2])
    whole = content.decode().split("\n")
    rows, _ = broken_at(TextLines(tmp_path), f"a.txt{ending}")
    assert rows == whole[: len(rows)]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\r\nb", ["a", "b"]),
        (b"\n\n", ["", ""]),
        (b"a\rb\n", ["a\rb"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        ("x\u2028y\x85z\x0bw\n".encode(), ["x\u2028y\x85z\x0bw"]),
    ],
)
def test_a_row_ends_at_a_newline_and_nowhere_else(tmp_path, content, rows):
    (tmp_path / "a.txt").write_bytes(content)
    source = TextLines(tmp_path)
    assert check_starts(source) == {"a.txt": rows}
    assert source.rows("a.txt") == len(rows)


@given(
    content=st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"1", b'"a b"', b"[2, 3]\n", b"\n" * 600])),
    start=st.integers(0, 12),
)
def test_rows_are_counted_as_they_are_read(tmp_path_factory, content, start):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(b"".join(content))
    for source in (TextLines(path), _Lines(path)):
        rows = list(source.open("a.jsonl", 0))
        assert source.rows("a.jsonl") == len(rows)
        assert list(source.open("a.jsonl", start)) == rows[start:]


class _Lines(JsonLines):
    """Any line is a value, so that only the counting of empty ones is tried."""

    _decode = TextLines._decode


def test_a_missing_shard_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("one\n", encoding="utf-8")
    source = TextLines(tmp_path)
    assert list(source.shards()) == ["a.txt"]
    (tmp_path / "a.txt").unlink()
    for start in (0, 3):
        assert broken_at(source, "a.txt", start)[1].why == "there is no such file"
    with pytest.raises(Exception, match=r"shard 'a\.txt' can't be read at row 0: there is no such file"):
        source.rows("a.txt")


@pytest.mark.parametrize("tail", [b'{"id": 2, "te', b"\xff\xfe{}\n", b"[" * 100_000])
def test_json_that_is_cut_off_or_damaged_is_named_with_its_row(tmp_path, tail):
    (tmp_path / "a.jsonl").write_bytes(b'{"id": 0}\n\n{"id": 1}\n' + tail)
    rows, error = broken_at(JsonLines(tmp_path), "a.jsonl")
    assert (rows, error.row) == ([{"id": 0}, {"id": 1}], 2)


def test_a_scan_is_done_once_and_later_starts_read_little(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(MANY), encoding="utf-8")
    source = files(tmp_path)
    opened = []
    whole = source.files.location.open

    class Counting:
        def __getattr__(self, name):
            return getattr(location, name)

        def open(self, name):
            opened.append(name)
            return whole(name)

    location = source.files.location
    vars(source.files)["_found"] = (Counting(), source.files.names)
    assert source.rows("a.txt") == len(MANY)
    assert next(source.open("a.txt", 2000)) == MANY[2000]
    assert len(opened) == 2
    first, offset = source._index("a.txt").before(2000)
    assert 0 < 2000 - first < 512
    assert offset > 0
