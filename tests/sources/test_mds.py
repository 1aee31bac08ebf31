"""MosaicML's MDS files."""

from __future__ import annotations

import json
import sys
from itertools import chain

import pytest
from shards import broken_at, check_starts

from raysgd_local.errors import InputError, ShardError
from raysgd_local.sources import Mds, files


@pytest.fixture
def streaming():
    return pytest.importorskip("streaming", reason="needs mosaicml-streaming: raysgd-local[mds]")


@pytest.fixture
def write(streaming, tmp_path):
    def write(columns, rows, **options):
        with streaming.MDSWriter(out=str(tmp_path / "set"), columns=columns, size_limit=4096, **options) as out:
            for row in rows:
                out.write(row)
        return tmp_path / "set"

    return write


ROWS = [{"id": number, "text": "τ" * (number % 50), "raw": bytes([number % 251])} for number in range(300)]
COLUMNS = {"id": "int", "text": "str", "raw": "bytes"}


@pytest.mark.parametrize("options", [{}, {"compression": "zstd:3"}, {"compression": "gz", "hashes": ["sha1"]}])
def test_rows_are_what_was_written_from_anywhere(write, options):
    source = files(write(COLUMNS, ROWS, **options))
    assert type(source) is Mds
    rows = check_starts(source)
    assert len(rows) > 3
    assert list(chain.from_iterable(rows.values())) == ROWS
    assert sum(source.rows(shard) for shard in source.shards()) == len(ROWS)


def test_a_shard_that_is_missing_or_cut_off_is_named_with_the_row(write):
    root = write(COLUMNS, ROWS)
    source = Mds(root)
    whole = check_starts(source)
    first, second, *_ = source.shards()
    content = (root / first).read_bytes()
    (root / first).write_bytes(content[: len(content) // 2])
    (root / second).unlink()
    rows, error = broken_at(source, first)
    assert rows == whole[first][: len(rows)]
    assert error.row == len(rows) < len(whole[first])
    assert broken_at(source, second, 2)[1].why == "there is no such file"
    with pytest.raises(ShardError, match="shard 'other'"):
        source.rows("other")


def test_pickles_are_refused(write):
    source = Mds(write({"x": "pkl"}, [{"x": {1}}]))
    with pytest.raises(InputError, match="columns without pickles.*unsafe type"):
        list(source.open(source.shards()[0], 0))


ENTRY = {"format": "mds", "samples": 1, "zip_data": None, "raw_data": {"basename": "a.mds"}}
WRONG = ([{}], [{**ENTRY, "format": "csv"}], [{**ENTRY, "samples": None}], [ENTRY, ENTRY], ["a.mds"])


@pytest.mark.parametrize("index", [None, "{", "[]", *(json.dumps({"shards": shards}) for shards in WRONG)])
def test_a_directory_without_a_good_index_is_refused(tmp_path, index):
    if index is not None:
        (tmp_path / "index.json").write_text(index, encoding="utf-8")
    with pytest.raises(InputError, match=r"a directory with index\.json") as caught:
        Mds(tmp_path).shards()
    assert str(tmp_path) in str(caught.value)


def test_without_the_library_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "streaming.base.format", None)
    (tmp_path / "index.json").write_text(json.dumps({"version": 2, "shards": [ENTRY]}), encoding="utf-8")
    with pytest.raises(InputError, match=r"raysgd-local\[mds\]"):
        list(Mds(tmp_path).open("a.mds", 0))
