"""Lists that go across epochs: each row of each epoch once, through deaths, joins and deals in the midst of any."""

from __future__ import annotations

import json
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysgd_local.control.data.streams.deal import Pending, StreamDeal, known_lengths
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.data.streams.lengths import merged, with_lengths
from raysgd_local.control.data.streams.parts import (
    PART,
    begins,
    consumed_by_epoch,
    ends_at,
    part,
    parts,
    taken_by_epoch,
    unsure,
)
from raysgd_local.control.data.streams.ranges import ROWS, Ranges
from raysgd_local.control.data.streams.spans import spans
from raysgd_local.control.data.streams.walk import Walk
from raysgd_local.serialization import from_plain, to_plain


class Reader:
    """Reads a rank's list: `rows` has each row's epoch and address, in order, `cursors` the position behind each."""

    def __init__(self, deal, rank, start, known, lengths, most):
        self.rows, self.cursors, self.found = [], [start], {}
        index, position = divmod(start, PART)
        while index < parts(deal) and len(self.rows) < most:
            self._read(deal, rank, index, position, with_lengths(known, self.found), lengths, most)
            index, position = index + 1, 0

    def _read(self, deal, rank, index, position, known, lengths, most):
        own = part(deal, index)
        pending, walk = Pending.of(own, rank), Walk(own, rank, known, position)
        while walk.next_window():
            window = []
            while turn := walk.turn():
                if turn.row < lengths[turn.shard]:
                    window.append(turn.shard * ROWS + turn.row)
                    walk.took()
                else:
                    walk.ended()
            for number in walk.order():
                epoch = pending.at(position)[0] if position < pending.count else 0
                position += 1
                self.rows.append((own.epoch + epoch, window[number]))
                self.cursors.append(index * PART + position)
            self.found = merged(self.found, walk.found())
            if len(self.rows) >= most:
                return
        self.cursors[-1] = (index + 1) * PART


class Fleet:
    """A run across epochs over a random source. `consumed` has the rows that the ledger should have."""

    def __init__(self, seed):
        self.rng = rng = np.random.default_rng(seed)
        self.lengths = [int(x) for x in rng.integers(0, rng.choice([2, 6, 40]) + 1, rng.integers(1, 9))]
        known = rng.random(len(self.lengths)) < rng.choice([0.0, 0.5, 1.0])
        ledger = StreamLedger.of(n if k else None for n, k in zip(self.lengths, known, strict=True))
        self.ledger, self.epochs = ledger.open_epoch(0), int(rng.integers(1, 5))
        self.settings = {"interleave": int(rng.integers(1, 4)), "window": int(rng.choice([1, 3, 16]))}
        self.pending: list[dict[int, Ranges]] = [{} for _ in range(rng.integers(1, 5))]
        self.consumed: Counter = Counter()

    def run(self, views):
        for _ in range(views):
            self.view(last=False)
        self.view(last=True)
        everything = {shard * ROWS + row for shard, length in enumerate(self.lengths) for row in range(length)}
        assert self.consumed == Counter((epoch, row) for epoch in range(self.epochs) for row in everything)
        ledger = self.ledger
        assert (ledger.rows_lost, ledger.rows_repeated, ledger.shards_unread, ledger.open) == (0, 0, 0, ())

    def view(self, last):
        """Deal, read, commit a part of it; some die, others keep the steps that they did not commit."""
        deal, total = self.deal(), len(self.lengths) * self.epochs * 41
        cursors, stepped, found = [], [], []
        for rank, start in enumerate(begins(deal)):
            most = total if last else int(self.rng.integers(0, 3 * sum(self.lengths) + 2))
            pending, known = Pending.of(deal, rank).count, self.ledger.known_lengths()
            reader = Reader(deal, rank, start, known, self.lengths, max(most, pending))
            rows = len(reader.rows)
            committed = rows if last else int(self.rng.choice([0, self.rng.integers(0, rows + 1)]))
            ahead = max(committed, pending, int(self.rng.integers(0, rows + 1)))
            self.consumed.update(reader.rows[:committed])
            cursors.append(ends_at(deal, self.epochs - 1) if last else reader.cursors[committed])
            stepped.append((reader.cursors[ahead], reader.rows[committed:ahead]))
            found.append(reader.found)
        survives = np.full(len(cursors), True) if last else self.rng.random(len(cursors)) < 0.6
        told = merged(*(own for own, alive in zip(found, survives, strict=True) if alive))
        self.measure(deal, cursors, told)
        self.follow(deal, cursors, stepped, survives, told, last)

    def deal(self) -> StreamDeal:
        first, ranks = self.ledger.epoch, len(self.pending)
        later = [
            [rows.get(first + ahead, Ranges()) for rows in self.pending] for ahead in range(1, self.epochs - first)
        ]
        own = [rows.get(first, Ranges()) for rows in self.pending]
        shares = tuple(self.rng.choice([0.5, 1.0, 3.0], ranks).tolist())
        left = (*self.rng.choice([0, 0, first + 1], ranks - 1).tolist(), 0)
        deal = self.ledger.deal(
            first, 3, shares, own, **self.settings, epochs=self.epochs, left=left, later_pending=later
        )
        self.ledger = self.ledger.dealt()
        return from_plain(StreamDeal, json.loads(json.dumps(to_plain(deal))))

    def measure(self, deal, cursors, told):
        while wanted := self.ledger.lengths_needed(deal, cursors, told):
            for shard, rows in wanted.items():
                goes_on = self.lengths[shard] >= rows and self.rng.random() < 0.7
                told[shard] = -1 - rows if goes_on else self.lengths[shard]

    def follow(self, deal, cursors, stepped, survives, told, last):
        known = with_lengths(self.ledger.known_lengths(), told)
        passed = min(deal.epoch + min(cursors) // PART, self.epochs - 1)
        ledger = self.ledger.pass_to(passed, deal, cursors, told)
        self.ledger = ledger.close_epoch(deal, cursors, told) if last else ledger.close(deal, cursors, told)
        if not last:
            self.check(passed)
        after = []
        for rank in np.flatnonzero(survives).tolist():
            stop, rows = stepped[rank]
            own = taken_by_epoch(deal, rank, cursors[rank], stop, known)
            assert {(epoch, row) for epoch in own for row in own[epoch].rows().tolist()} == set(rows)
            after.append(own)
        self.pending = [*after, *({} for _ in range(self.rng.integers(0 if after else 1, 3)))]

    def check(self, passed):
        """The open epochs' books have what was committed, row by row."""
        for epoch in range(passed, self.epochs):
            book = next((book for book in self.ledger.open if book.epoch == epoch), None)
            rows = {row for of, row in self.consumed if of == epoch}
            assert (0 if book is None else self.ledger.consumed_rows(epoch)) == len(rows)
        assert self.ledger.epoch == passed


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 4))
def test_every_row_of_every_epoch_is_consumed_once_through_deaths_and_joins(seed, views):
    Fleet(seed).run(views)


def dealt(lengths=(5, 4), epochs=3, ranks=2, **options) -> StreamDeal:
    return StreamLedger.of(lengths).open_epoch(0).deal(0, 3, (1.0,) * ranks, epochs=epochs, **options)


def test_each_epoch_is_dealt_in_another_order_and_equally_by_all():
    deal = dealt((7,) * 40)
    orders = [spans(part(deal, index), 0).shard.tolist() for index in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert [part(deal, index).epoch for index in range(3)] == [0, 1, 2]
    assert parts(deal) == 3


def test_a_cursor_behind_a_part_has_all_its_rows_and_one_inside_those_before_it():
    deal, lengths = dealt(ranks=1), np.array([5, 4])
    found = consumed_by_epoch(deal, 0, 2 * PART + 3, lengths, range(3))
    assert {epoch: rows.count for epoch, rows in found.items()} == {0: 9, 1: 9, 2: 3}
    assert consumed_by_epoch(deal, 0, 2 * PART, lengths, range(1, 3)).keys() == {1}
    with pytest.raises(RuntimeError, match="the lengths of shards 1 must be known first"):
        consumed_by_epoch(dealt((5, None), ranks=1), 0, PART, np.array([5, -1]), range(3))


def test_a_list_begins_behind_the_epochs_that_its_rank_left():
    deal = dealt((5,) * 8, left=(2, 0))
    assert begins(deal) == (2 * PART, 0)
    assert len(spans(part(deal, 1), 0)) == 0
    assert len(spans(part(deal, 2), 0)) > 0


def test_pending_rows_of_later_epochs_come_first_and_are_dealt_to_nobody_else():
    rows = Ranges.of([(1, 3)])
    deal = dealt(later_pending=[[Ranges(), rows]])
    assert begins(deal) == (0, 0)
    assert taken_by_epoch(deal, 1, 0, 2, np.array([5, 4])) == {1: rows}
    everything = [consumed_by_epoch(deal, rank, 3 * PART, np.array([5, 4]), range(3)) for rank in (0, 1)]
    assert [sum(own[epoch].count for own in everything) for epoch in range(3)] == [9, 9, 9]


@pytest.mark.parametrize(
    ("lengths", "epochs", "expected"), [((5, None), 3, True), ((5, 0), 3, False), ((5, None), 0, False)]
)
def test_later_epochs_are_unsure_while_a_length_is_not_known(lengths, epochs, expected):
    assert unsure(dealt(lengths, epochs)) is expected


def test_rows_that_nobody_consumed_are_lost_when_the_ledger_passes_on():
    ledger = StreamLedger.of([5, None]).open_epoch(0)
    deal = ledger.deal(0, 3, (1.0, 1.0), epochs=3)
    ledger = ledger.dealt().pass_to(1, deal, (2, 0))
    lost = 5 - 2 if spans(deal, 0).shard[0] == 0 else 5
    assert (ledger.rows_lost, ledger.shards_unread, ledger.epoch) == (lost, 1, 1)
    assert ledger.pass_to(1, deal, (2, 0)) is ledger


def test_a_deal_of_a_million_shards_is_hardly_larger_for_all_epochs_than_for_one():
    lengths = np.random.default_rng(0).integers(1, 10**6, 10**6)
    ledger = StreamLedger.of(lengths.tolist()).open_epoch(0)
    one, all_of_them = (ledger.deal(0, 3, (1.0,) * 8, epochs=epochs, window=256) for epochs in (0, 3))
    assert len(pickle.dumps(all_of_them)) < 1.1 * len(pickle.dumps(one)) < 10**6
    begun = ledger.dealt().close(all_of_them, [PART + 10**9] * 8)
    assert len(pickle.dumps(begun.deal(0, 3, (1.0,) * 8, epochs=3, window=256))) < 10**6


def test_rounded_lengths_of_finished_shards_do_not_count_in_an_epoch_ahead():
    lengths = np.random.default_rng(0).integers(1, 10**6, 300_000)
    ledger = StreamLedger.of(lengths.tolist()).open_epoch(0)
    ledger = ledger.close(ledger.deal(0, 3, (1.0,)), (int(lengths.sum()) // 2,))
    deal = ledger.deal(0, 3, (1.0,), epochs=2)
    assert deal.longest
    for index, own in enumerate((part(deal, 0), part(deal, 1))):
        exact = known_lengths(own)
        assert set(exact[exact >= 0].tolist()) <= set(lengths.tolist())
        rows = sum(size for size in lengths[np.unique(spans(own, 0).shard)].tolist())
        assert rows == lengths.sum() if index else rows < 0.6 * lengths.sum()
