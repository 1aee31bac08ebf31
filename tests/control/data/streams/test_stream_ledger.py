"""The ledger of streams: each row exactly once an epoch, through deaths, joins and deals; and bugs that must show."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_fleet import StreamFleet, Transform

from raysgd_local.control.data.streams import consumption
from raysgd_local.control.data.streams import spans as spans_module
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.data.streams.lines import lines
from raysgd_local.control.data.streams.ranges import Ranges
from raysgd_local.control.data.streams.row_count import RowCount
from raysgd_local.control.data.streams.spans import spans
from raysgd_local.serialization import from_plain, to_plain

IDENTITY = Transform(1, filters=False, pack=1)


@settings(max_examples=100)
@given(st.integers(0, 10**9))
def test_every_row_is_consumed_exactly_once_an_epoch_through_kills_and_joins(seed):
    StreamFleet(seed, IDENTITY).run()


@settings(max_examples=100)
@given(st.integers(0, 10**9))
def test_every_part_of_a_row_is_trained_on_whatever_the_transform_and_rows_split_are_counted(seed):
    StreamFleet(seed).run()


def forgets_windows(monkeypatch):
    monkeypatch.setattr(consumption, "window_order", lambda deal, rank, window, size: np.arange(size))


def deals_split_ranges_twice(monkeypatch):
    original = spans_module._stretch

    def whole_items(line, rank):
        table = original(line, rank)
        for row in table:
            (item,) = np.flatnonzero(line.items.shard == row[0])
            row[2] = line.items.known[item]
        return table

    monkeypatch.setattr(spans_module, "_stretch", whole_items)


def counts_prefetched_rows(monkeypatch):
    original = RowCount.after
    monkeypatch.setattr(RowCount, "after", lambda self, samples: original(self, self.samples))


def drops_a_packers_remainder(monkeypatch):
    original = RowCount.emitted
    monkeypatch.setattr(
        RowCount, "emitted", lambda self, rows, complete: original(self, rows, max(complete, max(rows) + 1))
    )


def forgets_pending_rows(monkeypatch):
    original = StreamLedger.deal

    def without(self, epoch, seed, shares, pending=(), *rest):
        return original(self, epoch, seed, shares, [Ranges()] * len(shares), *rest)

    monkeypatch.setattr(StreamLedger, "deal", without)


BUGS = [
    forgets_windows,
    deals_split_ranges_twice,
    counts_prefetched_rows,
    drops_a_packers_remainder,
    forgets_pending_rows,
]


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug, monkeypatch):
    bug(monkeypatch)
    forget_lists()
    try:
        with pytest.raises(AssertionError):
            run_fleets(seeds=60)
    finally:
        forget_lists()


def run_fleets(seeds):
    for seed in range(seeds):
        StreamFleet(seed).run()


def forget_lists():
    """Equal deals have different lists with and without a bug."""
    spans.cache_clear()
    lines.cache_clear()


def half(cursors=(3, 3), lengths=(5, 4, None)):
    """A ledger in the middle of an epoch, and the deal that it closed last."""
    ledger = StreamLedger.of(lengths).open_epoch(0)
    deal = ledger.deal(0, 3, (1.0, 1.0))
    return ledger.dealt().close(deal, cursors, {2: 6}), deal


def test_rows_that_no_resolved_round_consumed_when_the_epoch_closes_are_lost():
    ledger = StreamLedger.of([5, 4]).open_epoch(0)
    ledger = ledger.close_epoch(ledger.deal(0, 3, (1.0, 1.0)), (2, 1))
    assert (ledger.rows_lost, ledger.rows_repeated, ledger.shards_unread, ledger.open) == (6, 0, 0, ())


def test_a_shard_of_unknown_length_that_was_never_read_is_lost_as_a_shard():
    ledger = StreamLedger.of([5, None]).open_epoch(0)
    ledger = ledger.close_epoch(ledger.deal(0, 3, (1.0,)), (0,))
    assert (ledger.rows_lost, ledger.shards_unread) == (5, 1)


def test_closing_the_same_deal_twice_counts_what_it_repeats():
    ledger, deal = half()
    again = ledger.close(deal, (3, 4))
    assert (again.rows_repeated, again.consumed_rows(0)) == (6, 7)
    everything = ledger.close(deal, (15, 15)).close(deal, (15, 15))
    assert (everything.rows_repeated, everything.remaining(0)) == (6 + 15, 0)


def test_a_row_pending_on_two_ranks_counts_as_repeated():
    ledger = StreamLedger.of([5, 4]).open_epoch(0)
    deal = ledger.deal(0, 3, (1.0, 1.0), [Ranges.of([(0, 2)]), Ranges.of([(1, 2)])])
    assert ledger.close(deal, (2, 1)).rows_repeated == 1


def test_a_ledger_in_plain_form_goes_on_as_the_original():
    for ledger in (StreamLedger(), half()[0]):
        assert from_plain(StreamLedger, json.loads(json.dumps(to_plain(ledger)))) == ledger


def test_two_epochs_may_be_open_and_each_has_its_own_rows():
    ledger = StreamLedger.of([5, None]).open_epoch(0).open_epoch(1)
    first, second = ledger.deal(0, 3, (1.0,)), ledger.dealt().deal(1, 3, (1.0,))
    ledger = ledger.close(second, (2,), {1: 6}).close_epoch(first, (11,))
    assert (ledger.remaining(1), ledger.rows_lost, [book.epoch for book in ledger.open]) == (9, 0, [1])
    with pytest.raises(RuntimeError, match=r"epoch 0 is not open: \[1\] are"):
        ledger.close(first, (1,))
    with pytest.raises(RuntimeError, match="epoch 1 is open"):
        ledger.open_epoch(1)


def test_however_often_rows_are_dealt_again_few_shards_are_begun_and_the_record_stays_small():
    ledger, rng = StreamLedger.of([500] * 1000).open_epoch(0), np.random.default_rng(0)
    for _ in range(40):
        deal = ledger.deal(0, 7, (1.0,) * 8, interleave=4, window=256)
        ledger = ledger.dealt().close(deal, rng.integers(0, 1500, 8).tolist())
        assert len(Ranges.decode(deal.begun).shard_counts()[0]) <= 2 * 8 * 4
        assert len(pickle.dumps(deal)) < 4000


def test_empty_shards_are_finished_when_their_length_is_known():
    ledger = StreamLedger.of([0, None, 0]).open_epoch(0)
    ledger = ledger.close_epoch(ledger.deal(0, 3, (1.0,)), (0,), {1: 0})
    assert (ledger.rows_lost, ledger.shards_unread) == (0, 0)


def test_a_shard_is_done_when_its_length_is_found_out_after_its_rows_were_consumed():
    ledger = StreamLedger.of([None, None]).open_epoch(0)
    deal = ledger.deal(0, 3, (1.0,))
    first, second = spans(deal, 0).shard.tolist()
    ledger = ledger.dealt().close(deal, (3,), {first: -1 - 3})
    assert len(spans(ledger.deal(0, 3, (1.0,)), 0)) == 2
    ledger = ledger.learn({first: 3, second: 0})
    assert (ledger.remaining(0), len(spans(ledger.deal(0, 3, (1.0,)), 0))) == (0, 0)
    closed = ledger.close_epoch(ledger.deal(0, 3, (1.0,)), (0,))
    assert (closed.rows_lost, closed.rows_repeated, closed.shards_unread) == (0, 0, 0)


def test_a_source_without_shards_opens_and_closes():
    ledger = StreamLedger.of([]).open_epoch(0)
    assert ledger.close_epoch(ledger.deal(0, 3, (1.0, 1.0)), (0, 0)).rows_lost == 0


def test_a_shard_that_has_another_length_elsewhere_is_refused():
    with pytest.raises(ValueError, match="shard 1 has 5 rows; it had 4"):
        half()[0].learn({1: 5})


def test_closing_without_a_length_that_matters_is_refused_and_says_which():
    ledger = StreamLedger.of([3, None]).open_epoch(0)
    deal = ledger.deal(0, 3, (1.0,))
    assert ledger.lengths_needed(deal, (6,)).keys() == {1}
    with pytest.raises(RuntimeError, match="the lengths of shards 1 must be known first"):
        ledger.close(deal, (6,))
    assert ledger.close(deal, (6,), {1: -1 - 6}).consumed_rows(0) == 6


@pytest.mark.parametrize("lengths", [[1 << 41], range(5 * 10**6)])
def test_a_source_too_large_for_an_address_is_refused(lengths):
    with pytest.raises(ValueError, match="too many for an address"):
        StreamLedger.of(lengths)
