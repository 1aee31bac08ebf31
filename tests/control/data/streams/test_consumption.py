"""Consumed rows by the cursor alone, and the incremental walk, against a reader that goes row by row."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_deals import hidden, mid_epoch

from raysgd_local.control.data.streams import coding
from raysgd_local.control.data.streams.consumption import (
    consumed,
    list_length,
    needed,
    taken_between,
    window_order,
)
from raysgd_local.control.data.streams.deal import known_lengths, pending_rows
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.data.streams.lengths import with_lengths
from raysgd_local.control.data.streams.ranges import ROWS, Ranges
from raysgd_local.control.data.streams.schedule import schedule
from raysgd_local.control.data.streams.spans import spans
from raysgd_local.control.data.streams.walk import Walk, deliver


def read_in_turn(columns, interleave):
    """Take one item of each of `interleave` columns in turn; when one is used up, the next takes its turns."""
    waiting, turns, found = list(columns), [[] for _ in range(interleave)], []
    while turns:
        turn = turns.pop(0)
        while not turn and waiting:
            turn = list(waiting.pop(0))
        if turn:
            found.append(turn.pop(0))
            turns.append(turn)
    return found


def rows_of(span, lengths):
    stop = lengths[span.shard] if span.stop is None else span.stop
    return [span.shard * ROWS + row for row in range(span.start, stop) if not span.holes.contains(np.array(row))]


def whole_list(deal, rank, lengths):
    """The rank's list, row by row."""
    rows = read_in_turn([rows_of(span, lengths) for span in spans(deal, rank)], deal.interleave)
    found = pending_rows(deal, rank).rows().tolist()
    for window, begin in enumerate(range(0, len(rows), deal.window)):
        part = rows[begin : begin + deal.window]
        found += [part[number] for number in window_order(deal, rank, window, len(part))]
    return found


@settings(max_examples=60)
@given(st.integers(0, 10**9))
def test_what_is_consumed_at_any_cursor_is_what_was_read_row_by_row(seed):
    _, deal, lengths = mid_epoch(seed)
    for rank in range(len(deal.shares)):
        rows = whole_list(deal, rank, lengths)
        assert list_length(deal, rank, lengths) == len(rows)
        for cursor in range(len(rows) + 3):
            assert consumed(deal, rank, cursor, lengths) == Ranges.of_rows(np.array(rows[:cursor], dtype=np.int64))
        assert taken_between(deal, rank, 2, 9, lengths).rows().tolist() == sorted(rows[2:9])


@settings(max_examples=50)
@given(st.integers(0, 10**9))
def test_a_walk_from_any_cursor_delivers_the_rest_of_the_list(seed):
    _, deal, lengths = mid_epoch(seed)
    for rank in range(len(deal.shares)):
        rows = whole_list(deal, rank, lengths)
        for cursor in range(len(rows) + 3):
            assert list(deliver(deal, rank, lengths, cursor)) == rows[cursor:]


def walked(walk, lengths):
    """Read window by window, finding the ends of shards; yield the rows delivered in each window."""
    while walk.next_window():
        window = []
        while turn := walk.turn():
            if turn.row < lengths[turn.shard]:
                window.append(turn.shard * ROWS + turn.row)
                walk.took()
            else:
                walk.ended()
        yield [window[number] for number in walk.order()]


@settings(max_examples=100)
@given(st.integers(0, 10**9))
def test_a_walk_that_finds_the_ends_of_shards_delivers_what_one_does_that_knows_them(seed):
    _, deal, lengths = mid_epoch(seed)
    for rank in range(len(deal.shares)):
        walk, rows, expected = Walk(deal, rank, known_lengths(deal)), [], whole_list(deal, rank, lengths)
        for window in walked(walk, lengths):
            assert len(window) <= max(deal.window, pending_rows(deal, rank).count)
            rows += window
            assert all(
                lengths[shard] == n or -1 - n in range(lengths[shard] + 1) for shard, n in walk.found().items()
            )
            found, cursor = with_lengths(known_lengths(deal), walk.found()), len(rows) - len(window) // 2
            assert consumed(deal, rank, cursor, found).rows().tolist() == sorted(expected[:cursor])
            again = walked(Walk(deal, rank, found, cursor), lengths)
            assert [row for part in again for row in part] == expected[cursor:]
        assert rows == expected
        assert {shard: lengths[shard] for shard in walk.found()} == walk.found()


@settings(max_examples=60)
@given(st.integers(0, 10**9), st.booleans())
def test_only_lengths_that_matter_are_needed_and_bounds_suffice(seed, bounds):
    _, deal, lengths = mid_epoch(seed)
    for rank in range(len(deal.shares)):
        rows = whole_list(deal, rank, lengths)
        for cursor in range(0, len(rows) + 2, 3):
            known = hidden(lengths, known_lengths(deal))
            while wanted := needed(deal, rank, cursor, known):
                with pytest.raises(RuntimeError, match="must be known first"):
                    consumed(deal, rank, cursor, known)
                told = {
                    shard: -1 - count if bounds and lengths[shard] >= count else int(lengths[shard])
                    for shard, count in wanted.items()
                }
                reached = {address // ROWS for address in rows[: cursor + deal.window]}
                assert not (told.keys() - reached) & {row // ROWS for row in rows}, "only shards that it has begun"
                known = with_lengths(known, told)
            assert consumed(deal, rank, cursor, known) == consumed(deal, rank, cursor, lengths)


def test_a_dead_workers_open_shards_have_to_be_read_again_only_as_far_as_it_got():
    ledger = StreamLedger.of([None, None, None]).open_epoch(0)
    deal = ledger.deal(0, 3, (1.0,), interleave=2, window=10)
    first, second = spans(deal, 0).shard[:2].tolist()
    unknown = known_lengths(deal)
    assert needed(deal, 0, 20, unknown) == {first: 10, second: 10}
    assert needed(deal, 0, 21, unknown) == {first: 15, second: 15}, "in a window all its rows were read"
    third = 3 - first - second
    assert needed(deal, 0, 20, with_lengths(unknown, {first: -11, second: 4})) == {third: 6}


def test_a_cursor_of_a_billion_rows_in_a_million_shards_is_answered_at_once():
    lengths = np.random.default_rng(0).integers(900, 1201, 10**6)
    ledger = StreamLedger(shards=10**6, lengths=coding.encode_table(lengths + 1)).open_epoch(0)
    deal = ledger.deal(0, 3, (1.0,), interleave=8, window=1024)
    begin = time.process_time()
    assert consumed(deal, 0, 10**9 + 17, lengths).count == 10**9 + 17
    assert time.process_time() - begin < 5  # about 1.3 s


def test_a_shorter_window_comes_only_at_the_end_of_the_list():
    deal = StreamLedger.of([3] * 7).open_epoch(0).deal(0, 3, (1.0,), interleave=3, window=8)
    walk, sizes = Walk(deal, 0, known_lengths(deal)), []
    while walk.next_window():
        while walk.turn():
            walk.took()
        sizes.append(len(walk.order()))
    assert sizes == [8, 8, 5]


def test_a_window_is_shuffled_and_the_next_one_differently():
    deal = StreamLedger.of([200]).open_epoch(0).deal(0, 3, (1.0,), window=50)
    rows = np.array(list(deliver(deal, 0, known_lengths(deal)))).reshape(4, 50)
    np.testing.assert_array_equal(np.sort(rows), np.arange(200).reshape(4, 50))
    orders = {tuple(order) for order in (rows - rows.min(axis=1, keepdims=True)).tolist()}
    assert len(orders | {tuple(range(50))}) == 5


def test_a_shard_that_is_shorter_than_was_known_is_an_error_of_the_source():
    deal = StreamLedger.of([5]).open_epoch(0).deal(0, 3, (1.0,))
    walk = Walk(deal, 0, known_lengths(deal))
    assert walk.next_window()
    with pytest.raises(RuntimeError, match="longer, as far as was known"):
        walk.ended()


def test_a_walk_can_not_begin_after_shards_of_unknown_length():
    deal = StreamLedger.of([None, None]).open_epoch(0).deal(0, 3, (1.0,))
    with pytest.raises(RuntimeError, match="must be known"):
        Walk(deal, 0, known_lengths(deal), cursor=3)


@settings(max_examples=200)
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 5), st.integers(0, 40), st.integers(0, 40))
def test_a_schedule_reads_in_turn(sizes, interleave, start, count):
    columns = [[(span, offset) for offset in range(size)] for span, size in enumerate(sizes)]
    expected = read_in_turn(columns, interleave)[start : start + count]
    plan = schedule(np.array(sizes, dtype=np.int64), interleave, start + count)
    assert list(zip(*(column.tolist() for column in plan.reads(start, start + count)), strict=True)) == expected
