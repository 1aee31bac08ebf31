"""Tar files in WebDataset's form."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shards import broken_at, check_starts

from raysgd_local.sources import WebDatasetTar, tar_headers, webdataset

PACKERS = {
    "a.tar.gz": gzip.compress,
    "a.tgz": gzip.compress,
    "a.tar.bz2": bz2.compress,
    "a.tar.xz": lzma.compress,
    "a.tar.zst": lambda content: pa.Codec("zstd").compress(content, asbytes=True),
}


def archive(members, form=tarfile.USTAR_FORMAT, **fields) -> bytes:
    """A tar file of (name, content); without content, a directory."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            vars_of = {"type": tarfile.DIRTYPE} if content is None else {"size": len(content)}
            for field, value in {**vars_of, **fields}.items():
                setattr(info, field, value)
            tar.addfile(info, None if content is None else io.BytesIO(content))
    return file.getvalue()


def samples(count: int, name: str = "{:06}"):
    """Rows of 1 to 3 members of different sizes, some in directories."""
    for number in range(count):
        key = name.format(number)
        yield f"{key}.jpg", bytes([number % 251]) * (number * 37 % 1500)
        if number % 2:
            yield f"{key}.cls", str(number).encode()
        if number % 3 == 0:
            yield f"{key}.json", json.dumps({"id": number}).encode()


def expected(count: int, name: str = "{:06}"):
    rows: dict[str, dict] = {}
    for member, content in samples(count, name):
        key, _, extension = member.partition(".") if name[0] != "d" else _of_directory(member)
        row = rows.setdefault(key, {"__key__": key})
        row[extension] = {"jpg": bytes, "cls": int, "json": json.loads}[extension](content)
    return list(rows.values())


def _of_directory(member):
    key, dot, extension = member.rpartition(".")
    return key, dot, extension


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """So small files have many remembered offsets."""
    monkeypatch.setattr(webdataset, "_STEP", 16)


def test_consecutive_members_of_one_key_are_a_row(tmp_path):
    (tmp_path / "a.tar").write_bytes(archive(samples(200)))
    source = WebDatasetTar(tmp_path)
    assert check_starts(source, starts=30) == {"a.tar": expected(200)}
    assert source.rows("a.tar") is None


@pytest.mark.parametrize("name", PACKERS)
def test_compressed_archives_are_read_through(tmp_path, name):
    (tmp_path / name).write_bytes(PACKERS[name](archive(samples(50))))
    assert check_starts(WebDatasetTar(tmp_path), starts=3) == {name: expected(50)}


LONG = "{:06}" + "x" * 150
HEADERS = {
    "ustar": (tarfile.USTAR_FORMAT, {}, "{:06}"),
    "ustar's prefix": (tarfile.USTAR_FORMAT, {}, "d" * 90 + "/{:06}" + "x" * 80),
    "gnu": (tarfile.GNU_FORMAT, {}, "{:06}"),
    "gnu's long names": (tarfile.GNU_FORMAT, {}, LONG),
    "pax": (tarfile.PAX_FORMAT, {"mtime": 1.5}, "{:06}"),
    "pax's long names": (tarfile.PAX_FORMAT, {}, LONG),
    "pax in UTF-8": (tarfile.PAX_FORMAT, {}, "τ{:06}"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_every_form_of_headers_is_read_and_sought(tmp_path, kind):
    form, fields, name = HEADERS[kind]
    (tmp_path / "a.tar").write_bytes(archive(samples(60, name), form, **fields))
    assert check_starts(WebDatasetTar(tmp_path), starts=20) == {"a.tar": expected(60, name)}


@pytest.mark.parametrize(
    ("kind", "plain"), [("ustar", 60), ("ustar's prefix", 60), ("gnu", 60), ("pax", 60), ("gnu's long names", 0)]
)
def test_plain_headers_are_passed_quickly_and_others_left_to_the_library(tmp_path, kind, plain):
    form, fields, name = HEADERS[kind]
    content = archive(samples(60, name), form, **fields)
    assert len(list(tar_headers.row_offsets(io.BytesIO(content), 0))) == plain


def test_members_that_belong_to_no_row_are_left_out(tmp_path):
    members = [
        ("d/", None),
        ("d/a.x", b"1"),
        ("d/README", b"no"),
        ("d/a.y", b"2"),
        ("__meta__/b.x", b"no"),
        ("d/b.X", b"3"),
    ]
    (tmp_path / "a.tar").write_bytes(archive(members))
    found = check_starts(WebDatasetTar(tmp_path))["a.tar"]
    assert found == [{"__key__": "d/a", "x": b"1", "y": b"2"}, {"__key__": "d/b", "x": b"3"}]


def test_members_are_decoded_by_their_extension_unless_bytes_are_wanted(tmp_path):
    array = np.arange(6).reshape(2, 3)
    file = io.BytesIO()
    np.save(file, array)
    members = [("a.en.txt", "τ".encode()), ("a.cls", b"7"), ("a.npy", file.getvalue()), ("a.pyd", b"\x80")]
    (tmp_path / "a.tar").write_bytes(archive(members))
    (row,) = WebDatasetTar(tmp_path).open("a.tar", 0)
    assert np.array_equal(row.pop("npy"), array)
    assert row == {"__key__": "a", "en.txt": "τ", "cls": 7, "pyd": b"\x80"}
    (row,) = WebDatasetTar(tmp_path, decode=False).open("a.tar", 0)
    assert row == {"__key__": "a", **{name[2:]: content for name, content in members}}


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "a.tar").write_bytes(archive([("a.x", b"1"), ("b.npy", file.getvalue())]))
    rows, error = broken_at(WebDatasetTar(tmp_path), "a.tar")
    assert len(rows) == 1
    assert "allow_pickle" in error.why


def test_an_archive_of_no_members_has_no_rows(tmp_path):
    (tmp_path / "a.tar").write_bytes(archive([]))
    assert check_starts(WebDatasetTar(tmp_path)) == {"a.tar": []}


def test_two_members_of_one_name_in_a_row_are_an_error(tmp_path):
    (tmp_path / "a.tar").write_bytes(archive([("a.x", b"1"), ("b.x", b"2"), ("b.X", b"3")]))
    rows, error = broken_at(WebDatasetTar(tmp_path), "a.tar")
    assert (len(rows), error.why) == (1, "two members are named b.x")


def test_a_missing_archive_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(archive(samples(3)))
    source = WebDatasetTar(tmp_path)
    assert len(source.shards()) == 1
    (tmp_path / "a.tar").unlink()
    for start in (0, 2):
        assert broken_at(source, "a.tar", start)[1].why == "there is no such file"


@given(cut=st.integers(0, 2**30), pack=st.booleans())
def test_an_archive_that_is_cut_anywhere_is_never_taken_for_a_whole_one(tmp_path_factory, cut, pack):
    content = archive(samples(12))
    end = content.rstrip(b"\0")  # the mark of the end may be longer than is needed
    content = gzip.compress(content) if pack else content[: -(-len(end) // 512) * 512 + 512]
    name = "a.tar.gz" if pack else "a.tar"
    path = tmp_path_factory.mktemp("cut") / name
    path.write_bytes(content[: cut % (len(content) - 9 if pack else len(content))])
    rows, _ = broken_at(WebDatasetTar(path), name)
    assert rows == expected(12)[: len(rows)]


def test_a_damaged_header_is_named_with_its_row(tmp_path):
    content = bytearray(archive([(f"{number}.x", b"1") for number in range(10)]))
    content[5 * 1024 + 3] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(content)
    for start in (0, 3):
        rows, error = broken_at(WebDatasetTar(tmp_path), "a.tar", start)
        # The row before may go on in the damaged member.
        assert (rows[-1]["__key__"], error.row) == ("3", 4)


def test_webdataset_itself_reads_the_same_rows(tmp_path):
    reader = pytest.importorskip("webdataset", reason="needs the library webdataset, to compare with")
    (tmp_path / "a.tar").write_bytes(archive([*samples(40), ("c/d.e.jpg", b"x"), ("README", b"no")]))
    theirs = [
        {name: value for name, value in row.items() if name not in ("__url__", "__local_path__")}
        for row in reader.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    ]
    assert list(WebDatasetTar(tmp_path, decode=False).open("a.tar", 0)) == theirs
