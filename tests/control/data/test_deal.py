"""Deals: every open position to exactly one rank, as fairly as holdings allow, the same everywhere."""

import itertools
import json
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raysgd_local.algorithms.placement.table import ChunkHolder, Placement, chunk_bounds, rebalance
from raysgd_local.control.data.apportionment import apportion, fill, maximum_flow, split_among_holders
from raysgd_local.control.data.deal import (
    Deal,
    batch_bounds,
    lengths,
    lists,
    next_entries,
    own_entries,
    own_list,
    pack,
    uncovered,
    unpack,
)
from raysgd_local.errors import InputError
from raysgd_local.serialization import from_plain, to_plain


def make_deal(samples, ranks, chunks=8, copies=1, **changes):
    """A deal of a fresh epoch over a balanced placement, one rank a worker."""
    live = [ChunkHolder(f"{rank:04d}", "n") for rank in range(ranks)]
    table = rebalance(Placement.empty(chunks), live, copies)
    deal = Deal(
        number=1,
        epoch=0,
        seed=7,
        samples=samples,
        chunks=chunks,
        consumed=pack(np.zeros(samples, dtype=bool)),
        holders=tuple(tuple(int(worker) for worker in row) for row in table.holders),
        shares=(1.0,) * ranks,
        pending=((),) * ranks,
    )
    return replace(deal, **changes)


@st.composite
def deals(draw):
    samples, chunks, ranks = draw(st.integers(0, 200)), draw(st.integers(1, 12)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    consumed = rng.random(samples) < draw(st.sampled_from([0.0, 0.5, 0.95, 1.0]))
    free = rng.permutation(np.flatnonzero(~consumed))[: draw(st.integers(0, 20))]
    owners = rng.integers(0, ranks, len(free))
    return Deal(
        number=draw(st.integers(1, 5)),
        epoch=draw(st.integers(0, 3)),
        seed=draw(st.integers(0, 3)),
        samples=samples,
        chunks=chunks,
        consumed=pack(consumed),
        holders=tuple(
            tuple(np.flatnonzero(rng.random(ranks) < draw(st.sampled_from([0.3, 0.7])))) for _ in range(chunks)
        ),
        shares=tuple(float(x) for x in rng.choice([0.0, 0.5, 1.0, 1.7], ranks)),
        pending=tuple(tuple(free[owners == rank].tolist()) for rank in range(ranks)),
        local_data=draw(st.booleans()),
    )


def new_positions(deal):
    """Each rank's list without its pending prefix."""
    return [positions[len(own) :] for positions, own in zip(lists(deal), deal.pending, strict=True)]


def chunk_of(deal, positions):
    return np.searchsorted(chunk_bounds(deal.samples, deal.chunks), positions, side="right") - 1


@settings(max_examples=300, deadline=None)
@given(deals())
def test_every_open_position_is_in_exactly_one_list_unless_its_chunk_is_uncovered(deal):
    dealt = Counter(np.concatenate(lists(deal)).tolist())
    open_positions = np.flatnonzero(~unpack(deal.consumed, deal.samples))
    pending = set(itertools.chain(*deal.pending))
    lost = set(uncovered(deal))
    expected = [p for p in open_positions.tolist() if p in pending or chunk_of(deal, p) not in lost]
    assert dealt == Counter(expected)


@settings(max_examples=200, deadline=None)
@given(deals())
def test_a_list_and_how_long_all_are_is_known_without_the_others(deal):
    assert lengths(deal) == tuple(len(positions) for positions in lists(deal))
    for rank, positions in enumerate(lists(deal)):
        np.testing.assert_array_equal(own_list(deal, rank), positions)


@settings(max_examples=200, deadline=None)
@given(deals())
def test_pending_positions_come_first_and_idle_ranks_get_nothing_new(deal):
    for positions, own, share in zip(lists(deal), deal.pending, deal.shares, strict=True):
        assert tuple(positions[: len(own)]) == own
        if share == 0:
            assert len(positions) == len(own)


@settings(max_examples=200, deadline=None)
@given(deals())
def test_where_all_data_is_shared_totals_are_the_shares_to_within_a_sample(deal):
    deal = replace(deal, local_data=False)
    new = np.array([len(positions) for positions in new_positions(deal)])
    shares = np.array(deal.shares)
    if shares.any():
        assert np.abs(new - new.sum() * shares / shares.sum()).max() < 1
    else:
        assert new.sum() == 0


@settings(max_examples=200, deadline=None)
@given(deals())
def test_where_data_is_local_only_holders_get_a_chunks_positions(deal):
    deal = replace(deal, local_data=True)
    for rank, positions in enumerate(new_positions(deal)):
        assert all(rank in deal.holders[chunk] for chunk in chunk_of(deal, positions))


@st.composite
def holdings(draw):
    chunks, ranks = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    eligible = rng.random((chunks, ranks)) < 0.4
    eligible[np.arange(chunks), rng.integers(0, ranks, chunks)] = True
    eligible[rng.integers(0, chunks, ranks), np.arange(ranks)] = True
    return rng.integers(0, 50, chunks), eligible, rng.choice([0.5, 1.0, 2.0], ranks)


@settings(max_examples=300, deadline=None)
@given(holdings())
def test_the_highest_total_per_share_is_as_low_as_the_holdings_allow(case):
    counts, eligible, shares = case
    amounts = split_among_holders(counts, eligible, shares)
    assert (amounts.sum(axis=1) == counts).all()
    assert (amounts[~eligible] == 0).all()
    # By duality the best is the worst set of ranks: all that only they may take, over their shares together.
    best = 0.0
    for size in range(1, len(shares) + 1):
        for ranks in itertools.combinations(range(len(shares)), size):
            others = np.delete(eligible, ranks, axis=1).any(axis=1)
            best = max(best, counts[~others].sum() / shares[list(ranks)].sum())
    totals = amounts.sum(axis=0)
    assert (totals <= best * shares + 1 + 1e-9).all()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_where_each_chunk_has_one_holder_filling_does_what_a_maximum_flow_does(data):
    chunks, ranks = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 5))
    counts = np.array(data.draw(st.lists(st.integers(1, 9), min_size=chunks, max_size=chunks)))
    holders = data.draw(st.lists(st.integers(0, ranks - 1), min_size=chunks, max_size=chunks))
    eligible = np.arange(ranks) == np.array(holders)[:, None]
    shares = np.array(data.draw(st.lists(st.sampled_from([0.5, 1.0, 1.7]), min_size=ranks, max_size=ranks)))
    targets = apportion(int(counts.sum()), shares)
    filled, flow = fill(counts, eligible, targets), maximum_flow(counts, eligible, targets)
    assert (filled.amounts >= 0).all()
    assert (filled.amounts.sum(axis=1) <= counts).all()
    np.testing.assert_array_equal(filled.amounts.sum(axis=0), flow.amounts.sum(axis=0))
    assert filled.complete is flow.complete
    np.testing.assert_array_equal(filled.crowded_ranks, flow.crowded_ranks)
    np.testing.assert_array_equal(filled.crowded_chunks, flow.crowded_chunks)


def test_each_chunk_is_spread_over_all_its_holders():
    deal = make_deal(8000, ranks=4, chunks=32, copies=2, local_data=True)
    for rank, positions in enumerate(lists(deal)):
        parts = Counter(chunk_of(deal, positions).tolist())
        assert set(parts) == {chunk for chunk, holders in enumerate(deal.holders) if rank in holders}
        assert len(positions) == 2000


def test_holders_go_first_where_all_data_is_shared():
    deal = make_deal(800, ranks=4, chunks=32)
    for rank, positions in enumerate(lists(deal)):
        assert all(rank in deal.holders[chunk] for chunk in chunk_of(deal, positions))


def test_the_next_deal_number_epoch_or_seed_shuffles_anew():
    deal = make_deal(1000, ranks=2)
    for other in (replace(deal, number=2), replace(deal, epoch=1), replace(deal, seed=8)):
        assert any((a.shape != b.shape or (a != b).any()) for a, b in zip(lists(deal), lists(other), strict=True))


def test_a_list_wanders_over_its_chunks_instead_of_taking_one_after_the_other():
    deal = make_deal(8000, ranks=2, chunks=16)
    for positions in lists(deal):
        assert len(set(chunk_of(deal, positions[:100]).tolist())) == 8


def test_a_deal_in_plain_form_gives_the_same_lists_elsewhere():
    deal = make_deal(100, ranks=3, copies=2, pending=((5, 4), (), (99,)), shares=(1.0, 0.5, 2.0))
    again = from_plain(Deal, json.loads(json.dumps(to_plain(deal))))
    assert again == deal
    lists.cache_clear()
    first = lists(deal)
    lists.cache_clear()
    assert all((a == b).all() for a, b in zip(first, lists(again), strict=True))


def test_lists_can_not_be_changed_by_who_reads_them():
    with pytest.raises(ValueError, match="read-only"):
        lists(make_deal(10, ranks=2))[0][0] = 3


def test_fewer_samples_than_ranks_leave_some_without():
    assert sorted(len(positions) for positions in lists(make_deal(3, ranks=5, chunks=3))) == [0, 0, 1, 1, 1]


def test_nothing_left_gives_empty_lists():
    deal = make_deal(10, ranks=2, consumed=pack(np.ones(10, dtype=bool)))
    assert [positions.tolist() for positions in lists(deal)] == [[], []]
    assert uncovered(deal) == ()


def test_a_chunk_without_holder_is_left_undealt_and_told_only_where_data_is_local():
    deal = make_deal(16, ranks=2, chunks=4, holders=((0,), (), (1,), (0, 1)), local_data=True)
    assert uncovered(deal) == (1,)
    assert sorted(np.concatenate(lists(deal)).tolist()) == [0, 1, 2, 3, *range(8, 16)]
    shared = replace(deal, local_data=False)
    assert uncovered(shared) == ()
    assert sorted(np.concatenate(lists(shared)).tolist()) == list(range(16))


def test_a_chunk_whose_holders_all_left_the_epoch_is_uncovered():
    deal = make_deal(16, ranks=2, chunks=2, holders=((0,), (1,)), shares=(1.0, 0.0), local_data=True)
    assert uncovered(deal) == (1,)


@pytest.mark.parametrize("restricted", [False, True])
def test_imagenet_over_sixteen_ranks_is_dealt_at_once(restricted):
    deal = make_deal(1_280_000, ranks=16, chunks=256, copies=2, local_data=restricted)
    lists(replace(deal, samples=16, consumed=pack(np.zeros(16, dtype=bool))))  # loads what is loaded lazily
    begin = time.perf_counter()
    found = lists(deal)
    assert time.perf_counter() - begin < 2  # about 0.1 s
    assert [len(positions) for positions in found] == [80_000] * 16


@given(st.integers(0, 1000), st.lists(st.sampled_from([0.0, 0.1, 1.0, 3.0]), min_size=1, max_size=8))
def test_apportioned_parts_sum_to_the_total_and_are_within_one_of_their_shares(total, shares):
    parts, shares = apportion(total, np.array(shares)), np.array(shares)
    if shares.any():
        assert parts.sum() == total
        assert np.abs(parts - total * shares / shares.sum()).max() < 1
    else:
        assert not parts.any()


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 40))
@example(9, 0, 4)
@example(10, 0, 4)
@example(1, 0, 4)
def test_batches_follow_each_other_to_the_end_and_none_is_tiny_but_an_only_one(length, start, batch_size):
    bounds = batch_bounds(length, start, batch_size)
    assert [p for begin, end in bounds for p in range(begin, end)] == list(range(start, length))
    sizes = [end - begin for begin, end in bounds]
    assert all(size == batch_size for size in sizes[:-1])
    if len(sizes) > 1:
        assert batch_size <= 2 * sizes[-1] < 3 * batch_size


def test_a_batch_size_of_zero_is_refused():
    with pytest.raises(InputError, match="batch_size"):
        batch_bounds(10, 0, 0)


def test_a_rank_that_gets_nothing_of_later_epochs_has_a_list_that_ends():
    none = pack(np.zeros(4, dtype=bool))
    deal = Deal(1, 0, 7, 4, 1, none, ((0,),), (1.0, 0.0), ((), (1,)), epochs=5)
    assert [entries.tolist() for entries in own_entries(deal, 1, 0, parts=5)] == [[1]]
    assert next_entries(deal, 1, 0, 9) == (1,)
    assert sorted(next_entries(deal, 0, 3, 99)) == list(
        range(4, 20)
    )  # epochs 1 to 4: three samples were left of epoch 0
