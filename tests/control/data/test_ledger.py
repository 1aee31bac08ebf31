"""The ledger: each sample exactly once an epoch, whatever happens on the way; otherwise it is counted."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysgd_local.algorithms.placement.table import ChunkHolder, Placement, rebalance
from raysgd_local.control.data.deal import Deal, lists
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.serialization import from_plain, to_plain


def deal_of(ledger, members, placement, seed=3, shares=None, pending=None, restricted=False):
    rank = {worker: index for index, worker in enumerate(members)}
    return Deal(
        number=ledger.next_deal_number,
        epoch=ledger.epoch,
        seed=seed,
        samples=ledger.samples,
        chunks=placement.chunks,
        consumed=ledger.consumed,
        holders=tuple(tuple(rank[worker] for worker in row) for row in placement.holders),
        shares=shares or (1.0,) * len(members),
        pending=pending or ((),) * len(members),
        local_data=restricted,
    )


class Fleet:
    """Members that come and go while they consume what they are dealt; counts what resolved rounds trained on."""

    def __init__(self, rng, samples, restricted):
        self.rng, self.samples, self.restricted = rng, samples, restricted
        self.members = [f"w{index}" for index in range(rng.integers(1, 5))]
        self.joined = len(self.members)
        self.placement = Placement.empty(12)
        self.ledger = Ledger()
        self.trained = np.zeros(samples, dtype=int)

    def run_epoch(self, epoch, views):
        self.ledger = self.ledger.open_epoch(epoch, self.samples)
        pending = {}
        for _ in range(views):
            deal = self._deal(pending)
            pending = self._train_a_while(deal)
            self._change_members()
        deal = self._deal(pending)
        cursors = [len(positions) for positions in lists(deal)]
        self._count(deal, cursors)
        self.ledger = self.ledger.close_epoch(deal, cursors)

    def _deal(self, pending):
        live = [ChunkHolder(worker, f"n{worker[-1]}") for worker in self.members]
        self.placement = rebalance(self.placement, live, copies=2)
        shares = tuple(float(share) for share in self.rng.uniform(0.2, 3, len(self.members)))
        taken = tuple(pending.get(worker, ()) for worker in self.members)
        deal = deal_of(self.ledger, self.members, self.placement, 3, shares, taken, self.restricted)
        self.ledger = self.ledger.dealt()
        return deal

    def _train_a_while(self, deal):
        """Rounds resolve up to arbitrary cursors; beyond them lie steps that were taken and not committed."""
        lengths = [len(positions) for positions in lists(deal)]
        cursors = [int(self.rng.integers(0, length + 1)) for length in lengths]
        self._count(deal, cursors)
        self.ledger = self.ledger.close(deal, cursors)
        ends = [
            int(self.rng.integers(cursor, length + 1)) for cursor, length in zip(cursors, lengths, strict=True)
        ]
        return {
            worker: tuple(lists(deal)[rank][cursors[rank] : ends[rank]].tolist())
            for rank, worker in enumerate(self.members)
        }

    def _count(self, deal, cursors):
        for positions, cursor in zip(lists(deal), cursors, strict=True):
            np.add.at(self.trained, positions[:cursor], 1)

    def _change_members(self):
        """Some die, with the steps that they had taken; some join; their order changes."""
        survivors = [worker for worker in self.members if self.rng.random() < 0.6]
        joiners = [f"w{self.joined + index}" for index in range(self.rng.integers(0 if survivors else 1, 3))]
        self.joined += len(joiners)
        self.members = [str(worker) for worker in self.rng.permutation(survivors + joiners)]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 300), st.integers(0, 6), st.booleans())
def test_every_sample_is_consumed_exactly_once_an_epoch_through_kills_and_joins(seed, samples, views, restricted):
    fleet = Fleet(np.random.default_rng(seed), samples, restricted)
    for epoch in range(3):
        fleet.run_epoch(epoch, views)
    assert (fleet.trained == 3).all()
    assert (fleet.ledger.samples_lost, fleet.ledger.samples_repeated) == (0, 0)
    assert (fleet.ledger.epoch, fleet.ledger.deals) == (None, 3 * (views + 1))


PLACEMENT = Placement((("a",), ("b",), ("a",), ("b",)))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 100), st.integers(0, 100), st.integers(0, 100))
def test_what_no_resolved_round_consumed_when_the_epoch_closes_is_lost(samples, first, second):
    ledger = Ledger().open_epoch(0, samples)
    deal = deal_of(ledger, ["a", "b"], PLACEMENT)
    done = sum(min(cursor, len(p)) for cursor, p in zip((first, second), lists(deal), strict=True))
    assert ledger.close(deal, (first, second)).remaining == samples - done
    closed = ledger.close_epoch(deal, (first, second))
    assert (closed.samples_lost, closed.samples_repeated, closed.remaining) == (samples - done, 0, 0)


def test_closing_the_same_deal_twice_counts_what_it_repeats():
    ledger = Ledger().open_epoch(0, 20)
    deal = deal_of(ledger, ["a", "b"], PLACEMENT)
    ledger = ledger.close(deal, (4, 3)).close(deal, (6, 3))
    assert (ledger.samples_repeated, ledger.remaining) == (7, 20 - 9)


def test_a_position_pending_on_two_ranks_counts_as_repeated():
    ledger = Ledger().open_epoch(0, 20)
    deal = deal_of(ledger, ["a", "b"], PLACEMENT, pending=((5, 6), (6,)))
    assert ledger.close(deal, (2, 1)).samples_repeated == 1


def test_a_chunk_nobody_has_is_lost_when_the_epoch_closes():
    ledger = Ledger().open_epoch(0, 20)
    deal = deal_of(ledger, ["a"], Placement((("a",), (), ("a",), ())), restricted=True)
    assert ledger.close_epoch(deal, (20,)).samples_lost == 10


def test_counts_run_on_over_epochs_and_the_bitmap_begins_anew():
    ledger = Ledger()
    for epoch in range(2):
        ledger = ledger.open_epoch(epoch, 10)
        assert ledger.remaining == 10
        ledger = ledger.close_epoch(deal_of(ledger, ["a", "b"], PLACEMENT), (2, 2))
    assert ledger.samples_lost == 12


def test_a_checkpointed_ledger_goes_on_as_the_original():
    ledger = Ledger().open_epoch(4, 50).dealt()
    ledger = ledger.close(deal_of(ledger, ["a", "b"], PLACEMENT), (3, 20))
    for state in (Ledger(), ledger):
        assert from_plain(Ledger, json.loads(json.dumps(to_plain(state)))) == state


def test_an_empty_training_set_opens_and_closes():
    ledger = Ledger().open_epoch(0, 0)
    assert ledger.close_epoch(deal_of(ledger, ["a"], Placement.empty(1)), (0,)).samples_lost == 0


def test_an_epoch_can_not_open_while_another_is_open():
    with pytest.raises(RuntimeError, match="epoch 0 is open"):
        Ledger().open_epoch(0, 5).open_epoch(1, 5)


def test_a_deal_of_another_epoch_is_refused():
    ledger = Ledger().open_epoch(0, 5)
    old = deal_of(ledger, ["a", "b"], PLACEMENT)
    with pytest.raises(RuntimeError, match="epoch 1 is open"):
        ledger.close_epoch(old, (0, 0)).open_epoch(1, 5).close(old, (1, 1))
