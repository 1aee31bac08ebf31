"""Parquet: rows from any start, through row groups of any size."""

from __future__ import annotations

import datetime
import pickle

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet as pq
from shards import broken_at, check_starts

from raysgd_local.errors import InputError, ShardError
from raysgd_local.sources import Parquet, parquet


def table(rows: int) -> pa.Table:
    numbers = range(rows)
    return pa.table(
        {
            "id": list(numbers),
            "text": [f"τ{number}" if number % 3 else None for number in numbers],
            "tokens": [list(range(number % 4)) for number in numbers],
            "point": [{"x": number / 2} for number in numbers],
            "day": [datetime.date(2026, 1, 1) + datetime.timedelta(number) for number in numbers],
        }
    )


def test_rows_are_dicts_of_python_values_from_anywhere(tmp_path):
    pq.write_table(table(1000), tmp_path / "a.parquet", row_group_size=130)
    pq.write_table(table(70), tmp_path / "b.pq")
    source = Parquet(tmp_path)
    assert check_starts(source, starts=15) == {
        "a.parquet": table(1000).to_pylist(),
        "b.pq": table(70).to_pylist(),
    }
    assert [source.rows(shard) for shard in source.shards()] == [1000, 70]


@given(rows=st.integers(0, 50), group=st.integers(1, 20), batch=st.integers(1, 9), start=st.integers(0, 60))
def test_a_start_within_any_batch_of_any_row_group_is_found(tmp_path_factory, rows, group, batch, start):
    path = tmp_path_factory.mktemp("rows") / "a.parquet"
    pq.write_table(pa.table({"id": range(rows)}), path, row_group_size=group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "_MOST_ROWS", batch)
        assert [row["id"] for row in Parquet(path).open("a.parquet", start)] == list(range(rows))[start:]


def test_only_the_columns_that_are_wanted_are_read(tmp_path):
    pq.write_table(table(10), tmp_path / "a.parquet")
    source = Parquet(tmp_path, columns=["id", "point.x"])
    assert list(source.open("a.parquet", 8)) == [{"id": n, "point": {"x": n / 2}} for n in (8, 9)]
    with pytest.raises(InputError, match=r"columns: 'idd' is not allowed; .*id, text, tokens"):
        next(Parquet(tmp_path, columns=["idd"]).open("a.parquet", 0))


def test_a_file_of_no_rows_has_none(tmp_path):
    pq.write_table(table(0), tmp_path / "a.parquet")
    source = Parquet(tmp_path)
    assert check_starts(source) == {"a.parquet": []}
    assert source.rows("a.parquet") == 0


def test_large_rows_are_read_in_small_batches(tmp_path):
    pq.write_table(pa.table({"blob": [bytes([n]) * 1_000_000 for n in range(20)]}), tmp_path / "a.parquet")
    group = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0)
    assert group.total_byte_size // group.num_rows * parquet._batch_size(group) <= parquet._BATCH_BYTES
    assert check_starts(Parquet(tmp_path))["a.parquet"][7] == {"blob": b"\7" * 1_000_000}


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all"])
def test_a_file_without_its_footer_is_named(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    rows, _ = broken_at(Parquet(tmp_path), "a.parquet")
    assert rows == []
    with pytest.raises(ShardError, match=r"shard 'a\.parquet' can't be read at row 0"):
        Parquet(tmp_path).rows("a.parquet")


def test_a_missing_file_is_named(tmp_path):
    pq.write_table(table(10), tmp_path / "a.parquet")
    source = Parquet(tmp_path)
    assert source.rows("a.parquet") == 10
    (tmp_path / "a.parquet").unlink()
    assert broken_at(source, "a.parquet", 4)[1].why == "there is no such file"
    with pytest.raises(ShardError, match="there is no such file"):
        source.rows("a.parquet")


def test_a_file_that_is_damaged_inside_is_read_up_to_there(tmp_path):
    rows = [{"id": number, "text": f"{number**7:030}"} for number in range(3000)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=1000, compression="zstd")
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(1)
    content = bytearray(path.read_bytes())
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    content[begin : begin + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)
    good, error = broken_at(Parquet(tmp_path), "a.parquet")
    assert (good, error.row) == (rows[:1000], 1000)


def test_a_source_is_small_when_it_is_sent(tmp_path):
    pq.write_table(table(10), tmp_path / "a.parquet")
    source = Parquet(tmp_path, columns=("id",))
    check_starts(source)
    assert len(pickle.dumps(source)) < 1000
