"""Shards that break are ended there, the same wherever reading begins."""

from __future__ import annotations

import gzip
import pickle

import pytest

from raysgd_local.errors import ShardError
from raysgd_local.sources import JsonLines, Parquet, SkippingBad, TextLines, WebDatasetTar


@pytest.fixture
def damaged(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"".join(b"%d\n" % number for number in range(8)) + b"{\n8\n9\n")
    (tmp_path / "b.jsonl").write_bytes(b"1\n2\n")
    (tmp_path / "c.jsonl").write_bytes(b"1\n")
    source = JsonLines(tmp_path)
    assert len(source.shards()) == 3
    (tmp_path / "c.jsonl").unlink()
    return source


@pytest.mark.parametrize("first", [0, 3, 8, 9, 10, 99])
def test_a_shard_ends_where_it_breaks_wherever_reading_begins(damaged, first):
    assert list(damaged.open("a.jsonl", 9)) == [8, 9]  # a seek passes over the damage
    source = SkippingBad(damaged)
    assert list(source.open("a.jsonl", first)) == list(range(8))[first:]
    for start in (0, 5, 8, 9, 10):
        assert list(source.open("a.jsonl", start)) == list(range(8))[start:]
    assert source.rows("a.jsonl") == 8
    assert source.skipped() == {"a.jsonl": 3}


def test_good_shards_are_whole_and_missing_ones_counted_as_far_as_known(damaged):
    source = SkippingBad(damaged)
    assert source.shards() == damaged.shards()
    assert source.rows("b.jsonl") is None
    assert {shard: list(source.open(shard, 0)) for shard in source.shards()} == {
        "a.jsonl": list(range(8)),
        "b.jsonl": [1, 2],
        "c.jsonl": [],
    }
    assert [source.rows(shard) for shard in source.shards()] == [8, 2, 0]
    assert source.skipped() == {"a.jsonl": 3, "c.jsonl": None}


def test_a_reader_that_stops_in_between_knows_nothing_of_the_rest(damaged):
    source = SkippingBad(damaged)
    assert next(source.open("a.jsonl", 2)) == 2
    assert (source.rows("a.jsonl"), source.skipped()) == (None, {})
    assert list(source.open("a.jsonl", 9)) == []


def test_another_process_finds_the_same_by_itself(damaged):
    source = SkippingBad(damaged)
    list(source.open("a.jsonl", 0))
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.rows("a.jsonl"), copy.skipped()) == (None, {})
    assert list(copy.open("a.jsonl", 9)) == []
    assert copy.skipped() == {"a.jsonl": 3}


def test_cut_archives_and_compressed_files_end_where_they_are_cut(tmp_path):
    lines = [f"{number**9}" for number in range(50_000)]
    packed = gzip.compress("\n".join(lines).encode())
    (tmp_path / "a.txt.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "a.tar").write_bytes(b"")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    source = SkippingBad(TextLines(tmp_path))
    rows = list(source.open("a.txt.gz", 0))
    assert rows == lines[: len(rows)]
    assert 0 < len(rows) == source.rows("a.txt.gz")
    assert list(source.open("a.txt.gz", 1000)) == rows[1000:]
    assert source.skipped() == {"a.txt.gz": None}
    for kind, name in ((WebDatasetTar, "a.tar"), (Parquet, "a.parquet")):
        source = SkippingBad(kind(tmp_path))
        assert list(source.open(name, 0)) == []
        assert source.skipped() == {name: None}


class WithNodes:
    def shards(self):
        return ["a"]

    def rows(self, shard):
        return 2

    def nodes(self, shard):
        return ["n1"]

    def open(self, shard, start):
        yield from [1][start:]
        raise ShardError(shard, 1, "the network went away")


def test_the_places_of_shards_pass_through(damaged):
    assert SkippingBad(WithNodes()).nodes("a") == ("n1",)
    assert SkippingBad(damaged).nodes("a.jsonl") == ()


def test_an_error_of_another_kind_is_not_skipped():
    class Failing(WithNodes):
        def open(self, shard, start):
            yield 1
            raise KeyError("a bug")

    with pytest.raises(KeyError):
        list(SkippingBad(Failing()).open("a", 0))
    assert list(SkippingBad(WithNodes()).open("a", 0)) == [1]
