"""Batches of a stream's rows: whichever transforms, no row counts as consumed before all that is made of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.errors import InputError, ShardError
from raysgd_local.sources import Pack
from raysgd_local.sources.transform import Chain, checked
from raysgd_local.training.streams.batching import batches
from raysgd_local.training.streams.rows import ListRows


class Shards:
    """Row r of shard s is 100·s + r."""

    def __init__(self, lengths):
        self.lengths = lengths
        self.opened = []

    def shards(self):
        return [str(number) for number in range(len(self.lengths))]

    def rows(self, shard):
        return None

    def open(self, shard, start):
        self.opened.append((shard, start))
        return iter(range(100 * int(shard) + start, 100 * int(shard) + self.lengths[int(shard)]))


def rows(lengths, cursor=0, window=1, interleave=2, known=False, source=None):
    source = source or Shards(lengths)
    ledger = StreamLedger.of(lengths if known else [None] * len(lengths)).open_epoch(0)
    deal = ledger.deal(0, seed=1, shares=(1.0,), interleave=interleave, window=window)
    table = np.array(lengths) if known or cursor else np.full(len(lengths), -1)
    return ListRows(source, source.shards(), deal, 0, table, cursor)


def read(lengths, steps=(), size=4, cursor=0, **options):
    return list(batches(rows(lengths, cursor, **options), steps, size, cursor))


def repeated(row):
    return [row] * (row % 5)


def test_the_last_batch_says_that_the_list_ends_there():
    found = read([5, 4])
    assert [batch.count for batch in found] == [4, 5]  # one that is too small is joined to the one before
    assert [batch.cursor for batch in found] == [4, 9]
    assert [batch.last for batch in found] == [False, True]


def test_a_list_without_a_sample_has_one_batch_without_samples():
    (only,) = read([5, 4], [lambda row: None])
    assert (only.samples, only.count, only.cursor, only.last) == (None, 0, 9, True)
    (empty,) = read([0])
    assert (empty.samples, empty.cursor, empty.last) == (None, 0, True)


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.sampled_from(["plain", "filter", "split", "pack", "filter and pack"]),
    st.integers(1, 5),
    st.integers(1, 6),
)
def test_rows_are_consumed_with_the_last_sample_that_is_made_of_them(lengths, kind, size, window):
    steps = {
        "plain": [],
        "filter": [lambda row: row if row % 3 else None],
        "split": [repeated, Pack(1)],
        "pack": [repeated, Pack(4)],
        "filter and pack": [lambda row: row if row % 3 else None, repeated, Pack(3)],
    }[kind]
    whole = list(rows(lengths, window=window))
    parts = Counter()
    for row in whole:
        if "filter" in kind and row % 3 == 0:
            continue
        parts[row] = row % 5 if "split" in kind or "pack" in kind else 1
    given_out, before = Counter(), 0
    for batch in read(lengths, steps, size, window=window):
        given_out.update(np.concatenate([np.atleast_1d(sample) for sample in batch.samples or [[]]]).tolist())
        assert before <= batch.cursor <= len(whole)
        complete = whole[: batch.cursor]
        lacking = sum(parts[row] - given_out[row] for row in complete)
        assert lacking == 0 or (batch.last and "pack" in kind and lacking < 4)
        split = [row for row in whole[batch.cursor :] if given_out[row]]
        assert batch.split == len(split)
        before = batch.cursor
    assert before == len(whole)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 30), st.integers(1, 5))
def test_reading_that_begins_at_a_cursor_goes_on_as_reading_from_the_beginning(lengths, cursor, window):
    whole = list(rows(lengths, window=window))
    cursor = min(cursor, len(whole))
    assert list(rows(lengths, cursor, window=window)) == whole[cursor:]


def test_lengths_are_told_once_and_bounds_while_a_shard_is_read():
    reading = rows([3, 6], interleave=1)
    found = {}
    for _ in reading:
        found |= reading.news()
    assert found | reading.news() == {0: 3, 1: 6}
    assert reading.news() == {}


def test_a_shard_that_has_become_shorter_is_named():
    with pytest.raises(ShardError, match="'0'"):
        list(rows([5, 4], known=True, source=Shards([3, 4])))


def test_a_shard_is_opened_once_while_it_is_read_on():
    source = Shards([50, 50])
    list(rows([50, 50], source=source, window=7))
    assert sorted(source.opened) == [("0", 0), ("1", 0)]


def test_steps_of_a_chain_may_each_keep_a_part():
    pairs, triples = Pack(2), Pack(3)
    chain = Chain([lambda row: [row], pairs, triples])
    made = [chain.feed(row, row) for row in range(3)]
    assert [[sample.tolist() for sample in samples] for samples in made] == [[], [], []]
    assert chain.oldest == 0
    assert [sample.tolist() for sample in chain.feed(3, 3)] == [[0, 1, 2]]
    assert chain.oldest == 2  # of the pair of rows 2 and 3, the second is still in the triples
    assert chain.end() == []
    assert chain.oldest is None


def test_the_rest_of_a_packer_is_padded_or_dropped():
    padded = Chain([Pack(4, separator=9, pad=0)])
    assert padded.feed(0, [1, 2]) == []
    assert [sample.tolist() for sample in padded.end()] == [[1, 2, 9, 0]]
    assert padded.end() == []
    dropped = Chain([Pack(4)])
    assert dropped.feed(0, [1, 2]) == dropped.end() == []


@pytest.mark.parametrize("wrong", [7, "tokenise", [len, 3]])
def test_a_transform_that_is_none_is_refused(wrong):
    with pytest.raises(InputError, match="transform"):
        checked(wrong)


@pytest.mark.parametrize("wrong", ["text", [[1, 2], [3]], [1.5], {"input_ids": [1]}])
def test_what_is_no_sequence_of_tokens_is_refused_by_a_packer(wrong):
    with pytest.raises(InputError, match="transform"):
        Pack(4).add(wrong)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "4"])
def test_a_length_of_samples_that_is_none_is_refused(wrong):
    with pytest.raises(InputError, match="length"):
        Pack(wrong)
