"""Deals of streams: every row that is left to exactly one rank, by the shares, in records that stay small."""

import itertools
import json
import pickle
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_deals import mid_epoch
from stream_fleet import recorded

from raysgd_local.control.data.streams import coding
from raysgd_local.control.data.streams.consumption import list_length, taken_between
from raysgd_local.control.data.streams.deal import (
    StreamDeal,
    dealt_lengths,
    known_lengths,
    pending_rows,
)
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.data.streams.lengths import UNKNOWN, encode_lengths
from raysgd_local.control.data.streams.lines import SLACK, lines, uncovered, unknown_needed
from raysgd_local.control.data.streams.ranges import ROWS, Ranges
from raysgd_local.control.data.streams.spans import spans
from raysgd_local.serialization import from_plain, to_plain

MILLION, WORKERS = 10**6, 1024


def deal_of(lengths, shares=(1.0, 1.0), **settings):
    return StreamLedger.of(lengths).open_epoch(0).deal(0, 7, shares, **settings)


def new_rows(deal, rank, lengths):
    own = spans(deal, rank)
    return own.heads(own.sizes(lengths)).rows().tolist()


def shards_of(deal, rank):
    return [(span.shard, span.start, span.stop) for span in spans(deal, rank)]


@settings(max_examples=200)
@given(st.integers(0, 10**9))
def test_every_row_that_is_left_is_in_exactly_one_list(seed):
    ledger, deal, lengths = mid_epoch(seed)
    rows = Counter(recorded(ledger, 0))
    for rank in range(len(deal.shares)):
        rows.update(pending_rows(deal, rank).rows().tolist() + new_rows(deal, rank, lengths))
    assert rows == Counter(shard * ROWS + row for shard, n in enumerate(lengths.tolist()) for row in range(n))


@settings(max_examples=200)
@given(st.integers(0, 10**9))
def test_where_all_lengths_are_known_rows_are_dealt_in_proportion_to_the_shares(seed):
    _, deal, lengths = mid_epoch(seed, all_known=True)
    new = np.array([len(new_rows(deal, rank, lengths)) for rank in range(len(deal.shares))])
    exact = new.sum() * np.array(deal.shares) / sum(deal.shares)
    assert (np.abs(new - exact) <= 4 * (1 + SLACK * exact)).all(), "two lines, each cut at both ends"
    assert not new[np.array(deal.shares) == 0].any()


@settings(max_examples=100)
@given(st.integers(0, 10**9))
def test_shards_that_were_begun_come_first(seed):
    _, deal, _ = mid_epoch(seed)
    begun = set(lines(deal).taken.shard_counts()[0].tolist())
    for rank in range(len(deal.shares)):
        old = [shard in begun for shard in spans(deal, rank).shard.tolist()]
        assert old == sorted(old, reverse=True)


@settings(max_examples=100)
@given(st.integers(0, 10**9))
def test_a_deal_in_plain_form_gives_the_same_spans_elsewhere(seed):
    _, deal, _ = mid_epoch(seed)
    again = from_plain(StreamDeal, json.loads(json.dumps(to_plain(deal))))
    assert again == deal == pickle.loads(pickle.dumps(deal))
    here = [shards_of(deal, rank) for rank in range(len(deal.shares))]
    spans.cache_clear()
    lines.cache_clear()
    assert [shards_of(again, rank) for rank in range(len(deal.shares))] == here


def test_many_shards_are_dealt_whole():
    deal = deal_of([100] * 640, (1.0, 2.0, 1.0))
    dealt = [shards_of(deal, rank) for rank in range(3)]
    assert [len(own) for own in dealt] == [160, 320, 160]
    assert sorted(itertools.chain(*dealt)) == [(shard, 0, 100) for shard in range(640)]


def test_few_shards_are_split():
    deal = deal_of([100, 100, 100], (1.0,) * 4)
    assert [list_length(deal, rank, known_lengths(deal)) for rank in range(4)] == [75] * 4


def test_shards_of_unknown_length_are_dealt_by_their_number_and_never_split():
    deal = deal_of([None] * 8, (1.0, 2.0, 1.0))
    assert [len(spans(deal, rank)) for rank in range(3)] == [2, 4, 2]
    assert all(stop is None for rank in range(3) for _, _, stop in shards_of(deal, rank))
    assert unknown_needed(deal) == ()


def test_where_there_are_fewer_shards_than_ranks_the_unknown_lengths_are_needed():
    ledger = StreamLedger.of([None, 5, None]).open_epoch(0)
    assert unknown_needed(ledger.deal(0, 7, (1.0,) * 4)) == (0, 2)
    assert unknown_needed(ledger.deal(0, 7, (1.0,) * 3 + (0.0,))) == ()
    measured = ledger.learn({0: 20, 2: 15}).deal(0, 7, (1.0,) * 4)
    assert unknown_needed(measured) == ()
    assert [list_length(measured, rank, known_lengths(measured)) for rank in range(4)] == [10] * 4


def test_ranks_without_a_share_get_nothing_new_and_without_any_share_nobody_does():
    deal = deal_of([9, None], (0.0, 1.0, 0.0))
    assert [len(spans(deal, rank)) for rank in range(3)] == [0, 2, 0]
    assert [len(spans(deal_of([9, None], (0.0, 0.0)), rank)) for rank in range(2)] == [0, 0]


def test_the_next_deal_number_epoch_or_seed_shuffles_anew():
    deal = deal_of([3] * 50)
    for other in (replace(deal, number=2), replace(deal, epoch=1), replace(deal, seed=8)):
        assert shards_of(other, 0) != shards_of(deal, 0)


def test_holders_go_first_and_the_shares_hold():
    holders = [(shard % 4,) for shard in range(400)]
    deal = deal_of([10] * 400, (1.0,) * 4, holders=holders)
    assert all({shard % 4 for shard in spans(deal, rank).shard.tolist()} == {rank} for rank in range(4))
    skewed = deal_of([10] * 400, (1.0,) * 4, holders=[(0,)] * 300 + [()] * 100)
    assert [list_length(skewed, rank, known_lengths(skewed)) for rank in range(4)] == [1000] * 4
    assert set(spans(skewed, 0).shard.tolist()) <= set(range(300))


def test_holders_get_whole_shards_where_the_shares_hold_nearly():
    lengths = np.random.default_rng(0).integers(90, 110, 4000).tolist()
    deal = deal_of(lengths, (1.0,) * 4, holders=[(shard % 4,) for shard in range(4000)])
    assert sum(len(spans(deal, rank)) for rank in range(4)) == 4000
    assert sum(int((spans(deal, rank).shard % 4 != rank).sum()) for rank in range(4)) < 10


def test_shards_with_several_holders_are_dealt_among_these():
    deal = deal_of([10] * 200, (1.0,) * 3, holders=[(0, 1)] * 100 + [(1, 2)] * 100)
    own = [spans(deal, rank).shard for rank in range(3)]
    assert own[0].max() < 100 <= own[2].min()
    assert [list_length(deal, rank, known_lengths(deal)) for rank in range(3)] == pytest.approx(
        [667] * 3, rel=0.02
    )


def test_more_rows_than_a_maximum_flow_can_count_are_dealt_too():
    deal = deal_of([10**9] * 200, (1.0,) * 3, holders=[(0, 1)] * 100 + [(1, 2)] * 100)
    sizes = [list_length(deal, rank, known_lengths(deal)) for rank in range(3)]
    assert sum(sizes) == 200 * 10**9
    assert sizes == pytest.approx([2 / 3 * 10**11] * 3, rel=0.02)


def test_where_data_is_local_only_holders_get_a_shard_and_one_without_any_is_told():
    holders = [(0,), (1,), (), (0, 1)]
    deal = deal_of([8, 8, 8, None], holders=holders, local_data=True)
    for rank in range(2):
        assert all(rank in holders[shard] for shard in spans(deal, rank).shard.tolist())
    assert uncovered(deal) == (2,)
    assert uncovered(replace(deal, local_data=False)) == ()
    assert uncovered(replace(deal, shares=(1.0, 0.0))) == (1, 2)
    nowhere = deal_of([8, 8], local_data=True)
    assert (uncovered(nowhere), len(spans(nowhere, 0)), len(spans(nowhere, 1))) == ((0, 1), 0, 0)


def test_pending_rows_for_another_number_of_ranks_are_refused():
    with pytest.raises(ValueError, match="1 lists of pending rows for 2 ranks"):
        deal_of([5], pending=[Ranges()])


@pytest.mark.parametrize("settings", [{"interleave": 0}, {"interleave": 5000}, {"window": 0}])
def test_no_spans_in_turn_too_many_or_an_empty_window_are_refused(settings):
    with pytest.raises(ValueError, match="spans in turn, and windows of"):
        deal_of([5], **settings)


def million(kind):
    """The lengths of a million shards, as they are known, and as they are."""
    rng = np.random.default_rng(0)
    true = {
        "unknown": np.full(MILLION, 1000),
        "equal": np.full(MILLION, 1000),
        "random": rng.integers(900, 1101, MILLION),
        "lognormal": np.exp(rng.normal(6, 1.5, MILLION)).astype(np.int64),
    }[kind]
    known = np.full(MILLION, UNKNOWN) if kind == "unknown" else true
    ledger = StreamLedger(shards=MILLION, lengths=coding.encode_table(known + 1)).open_epoch(0)
    return ledger, true


@pytest.mark.parametrize(
    ("kind", "spread"), [("unknown", 0.01), ("equal", 0.01), ("random", 0.01), ("lognormal", 0.1)]
)
def test_a_million_shards_are_dealt_to_a_thousand_workers_in_two_seconds_and_records_are_below_a_megabyte(
    kind, spread
):
    ledger, true = million(kind)
    begin = time.process_time()
    deal = ledger.deal(0, 7, (1.0,) * WORKERS, interleave=8, window=1024)
    spans(deal, 5)
    assert time.process_time() - begin < 2  # about 0.4 s, up to 1 s where lengths have to be rounded
    totals = np.array([int(spans(deal, rank).sizes(true).sum()) for rank in range(WORKERS)])
    assert totals.sum() == true.sum()
    assert np.abs(totals / totals.mean() - 1).max() < spread
    assert len(pickle.dumps(deal)) < 10**6
    if kind in ("equal", "lognormal"):
        return
    later = in_the_middle(ledger, deal, totals, true)
    assert len(pickle.dumps(later)) < 10**6
    begin = time.process_time()
    spans(later, 5)
    assert time.process_time() - begin < 2  # about 0.3 s


def in_the_middle(ledger, deal, totals, true):
    """The deal after half of the epoch, with 512 pending rows for each worker."""
    cursors = totals // 2 + np.random.default_rng(1).integers(0, 1024, WORKERS)
    read = {}
    for rank in range(WORKERS if (ledger.known_lengths() < 0).any() else 0):
        own = spans(deal, rank).shard
        read |= {int(shard): int(true[shard]) for shard in own[: len(own) // 2 + 9]}
    after = ledger.dealt().close(deal, cursors.tolist(), read)
    assert after.consumed_rows(0) == cursors.sum()
    pending = [
        taken_between(deal, rank, cursor, cursor + 512, true) for rank, cursor in enumerate(cursors.tolist())
    ]
    return after.deal(0, 7, deal.shares, pending, interleave=8, window=1024)


def test_rounded_lengths_keep_their_sum_and_the_longest_are_exact():
    true = np.exp(np.random.default_rng(0).normal(6, 1.5, MILLION)).astype(np.int64)
    table, longest = encode_lengths(true)
    assert len(table) + len(longest) < 500_000
    deal = replace(deal_of([None] * MILLION), lengths=table, longest=longest)
    assert dealt_lengths(deal).sum() == pytest.approx(true.sum(), rel=0.01)
    exact = known_lengths(deal)
    assert (exact[exact >= 0] == true[exact >= 0]).all()
    assert set(np.argsort(true)[-4000:]) <= set(np.flatnonzero(exact >= 0))
