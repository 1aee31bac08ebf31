"""Sets of rows against Python's sets, and their codes."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raysgd_local.control.data.streams import coding
from raysgd_local.control.data.streams.ranges import ROWS, Ranges

ROW = st.integers(0, 40)
PAIRS = st.lists(st.tuples(ROW, ROW), max_size=12)
ADDRESSES = st.lists(st.tuples(st.integers(0, 5), ROW), max_size=40)


def rows_of(pairs):
    return {row for start, stop in pairs for row in range(start, stop)}


def addressed(addresses):
    return Ranges.of_rows(np.array([shard * ROWS + row for shard, row in addresses], dtype=np.int64))


@given(PAIRS, PAIRS, st.integers(0, 45))
@example([(0, 4)], [], 1)
def test_ranges_compute_as_sets_of_rows_do(left, right, length):
    a, b, rows = Ranges.of(left), Ranges.of(right), (rows_of(left), rows_of(right))
    for ranges, expected in [
        (a, rows[0]),
        (a | b, rows[0] | rows[1]),
        (a & b, rows[0] & rows[1]),
        (a - b, rows[0] - rows[1]),
        (a.complement(length), set(range(length)) - rows[0]),
        (a.between(3, length), rows[0] & set(range(3, length))),
        (a.head(length), set(sorted(rows[0])[:length])),
    ]:
        assert ranges.rows().tolist() == sorted(expected)
        assert ranges.count == len(expected)
        assert bool(ranges) == bool(expected)
        assert ranges == Ranges.of((row, row + 1) for row in expected)
        assert (np.diff(ranges.bounds) > 0).all(), "ranges are sorted, not empty, and don't touch"
    assert a.contains(np.arange(45)).tolist() == [row in rows[0] for row in range(45)]
    assert [row for start, stop in a for row in range(start, stop)] == sorted(rows[0])


@given(ADDRESSES, st.sets(st.integers(0, 5)))
def test_rows_of_many_shards_are_one_set(addresses, shards):
    ranges, counts = addressed(addresses), {}
    for shard, _ in set(addresses):
        counts[shard] = counts.get(shard, 0) + 1
    for shard in range(6):
        assert ranges.of_shard(shard).rows().tolist() == sorted({row for s, row in addresses if s == shard})
    found = ranges.shard_counts()
    assert dict(zip(*(column.tolist() for column in found), strict=True)) == counts
    kept = ranges.without_shards(np.array(sorted(shards), dtype=np.int64))
    assert kept == addressed((shard, row) for shard, row in addresses if shard not in shards)


@given(ADDRESSES)
@example([(0, 0), (5, ROWS - 1), (4, ROWS - 1)])
def test_a_decoded_set_is_the_one_that_was_encoded(addresses):
    ranges = addressed(addresses)
    assert Ranges.decode(ranges.encode()) == ranges
    assert hash(Ranges.decode(ranges.encode())) == hash(ranges)


@given(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 70)))
@example([2**63 - 1, 0, 7, 8])
def test_decoded_integers_are_those_that_were_encoded(values):
    assert coding.decode(coding.encode(values)).tolist() == values


@given(st.lists(st.integers(0, 2**40) | st.integers(0, 3)))
def test_a_decoded_table_is_the_one_that_was_encoded(values):
    table = np.array(values, dtype=np.int64)
    assert coding.decode_table(coding.encode_table(table)).tolist() == values


@pytest.mark.parametrize(
    ("table", "most"),
    [
        (np.full(10**6, 12345), 10),
        (np.arange(10**6) // 1000, 4000),
        (np.random.default_rng(0).integers(900, 908, 10**6), 375_100),
    ],
)
def test_a_table_with_runs_or_few_distinct_values_is_small(table, most):
    assert len(coding.encode_table(table)) <= most


def test_no_bytes_are_an_empty_set_and_an_empty_table():
    assert Ranges.decode(b"") == Ranges() == Ranges.decode(Ranges().encode())
    assert coding.decode_table(b"").tolist() == []
