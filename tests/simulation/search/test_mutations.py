"""Bugs put in on purpose, one at a time: the search must find each within 2,000 seeds."""

from dataclasses import replace

import numpy as np
import pytest

from raysgd_local.algorithms.placement.table import ChunkHolder
from raysgd_local.control.control_slots import Control
from raysgd_local.control.controller import agreement, arrivals, boundary, dealing, membership, orders
from raysgd_local.control.controller import streams as controller_streams
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.data.streams import consumption, spans
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.data.streams.parts import PART
from raysgd_local.control.member import machine as member
from raysgd_local.control.member import view_entry
from raysgd_local.control.member.events import YieldAsked
from raysgd_local.control.member.free_steps import Allowance
from raysgd_local.control.messages import LoopPosition
from raysgd_local.control.replicated import state as replicated
from raysgd_local.simulation.engine import streams
from raysgd_local.simulation.search import methods, seed_search
from raysgd_local.simulation.search.random_scenario import random_scenario
from raysgd_local.sources.transform import Chain
from raysgd_local.training.streams import batching
from raysgd_local.training.streams.rows import ListRows

SEEDS = 2000


def found(*words, before=lambda: None, only=lambda _: True):
    """The first seed that finds the bug, and what it finds: that must be about `words`, not any crash.

    `only`: seeds on which the bug may have an effect; others are passed over, but count.
    """
    for seed in filter(only, range(SEEDS)):
        before()
        outcome = seed_search.attempt(random_scenario(seed))
        if isinstance(outcome, str):
            assert any(word in outcome for word in words), outcome
            print(f"seed {seed}: {outcome}")
            return True
    return False


def test_a_joiner_that_donates_state_is_found(monkeypatch):
    right = orders._continuation

    def wrong(*arguments):
        start = right(*arguments)
        return replace(start, lead=start.receivers[0]) if start.receivers else start

    monkeypatch.setattr(orders, "_continuation", wrong)
    assert found("without committed state", "replicas are equal")


def test_a_position_dealt_twice_is_found(monkeypatch):
    right = Ledger.close

    def wrong(self, deal, cursors):
        forgotten = next((rank for rank, cursor in enumerate(cursors) if cursor), None)
        return right(self, deal, [c - (rank == forgotten) for rank, c in enumerate(cursors)])

    monkeypatch.setattr(Ledger, "close", wrong)
    assert found("the ledger knows", "no sample twice", "what is lost is counted")


def test_a_message_of_an_old_view_that_is_accepted_is_found(monkeypatch):
    right = arrivals.arrive

    def wrong(turn, report):
        state, segment = turn.state, turn.state.segment
        if report.view and segment is not None and report.worker in state.workers:
            report = replace(report, view=segment.view.number, segment=segment.number)
        right(turn, report)

    monkeypatch.setattr(arrivals, "arrive", wrong)
    assert found("")


def test_a_zombie_whose_higher_round_is_adopted_is_found(monkeypatch):
    right_arrive, right_resolve = arrivals.arrive, boundary.resolve
    zombies = {}

    def arrive(turn, report):
        if (
            report.worker not in turn.state.workers
            and turn.state.view is not None
            and report.replicated is not None
        ):
            zombies[turn.state.view.number] = report
        right_arrive(turn, report)

    def resolve(reports, after):
        for zombie in (zombies[v] for v in {report.view for report in reports} if v in zombies):
            reports = [
                replace(r, replicated=zombie.replicated, rounds=zombie.rounds)
                if r.replicated and r.replicated.progress < zombie.replicated.progress
                else r
                for r in reports
            ]
        return right_resolve(reports, after)

    monkeypatch.setattr(arrivals, "arrive", arrive)
    monkeypatch.setattr(boundary, "resolve", resolve)
    assert found("", before=zombies.clear)


def test_anti_affinity_that_is_ignored_is_found(monkeypatch):
    monkeypatch.setattr(dealing, "ChunkHolder", lambda worker, _node: ChunkHolder(worker, "one"))
    assert found("copies sit on distinct nodes")


def test_a_lost_yield_is_found(monkeypatch):
    right = member.advance

    def wrong(state, event):
        return (state, ()) if isinstance(event, YieldAsked) else right(state, event)

    monkeypatch.setattr(member, "advance", wrong)
    assert found("a yield is passed on")


def test_samples_of_steps_that_a_loop_took_by_itself_and_does_not_tell_of_are_found(monkeypatch):
    right = Allowance.ended
    monkeypatch.setattr(Allowance, "ended", lambda self: tuple(replace(t, samples=0) for t in right(self)))
    assert found("who says samples took them")


def test_weights_that_are_not_renormalised_are_found(monkeypatch):
    monkeypatch.setattr(Control, "weight", property(lambda self: float(self.samples)))
    assert found("weights sum to one")


@pytest.mark.long
def test_an_unresolved_round_in_a_checkpoint_is_found(monkeypatch):
    right = orders._due_save

    def wrong(turn, view, books, reports):
        return right(turn, view, books, [replace(r, steps=0, replicated=None) for r in reports])

    monkeypatch.setattr(orders, "_due_save", wrong)
    assert found("resolved state only")


def test_a_model_that_is_given_before_all_averaged_is_found(monkeypatch):
    monkeypatch.setattr(replicated, "meets", lambda control: False)
    monkeypatch.setattr(boundary, "settled", lambda reports: True)
    assert found("not in it", "what is given", "resolved state only")


def test_gossip_that_forgets_a_neighbour_s_weight_is_found(monkeypatch):
    right = methods.mixing
    monkeypatch.setattr(methods, "mixing", lambda *where: {**right(*where), where[1]: 0.5})
    assert found("gossip conserves the mean")


def test_an_evaluation_of_one_rank_alone_that_is_not_noticed_is_found(monkeypatch):
    monkeypatch.setattr(agreement, "disagree", lambda turn, heartbeat: False)
    assert found("given up for nothing", "every run ends")


@pytest.mark.long
def test_an_epoch_that_is_not_opened_without_a_rank_whose_loop_has_ended_is_found(monkeypatch):
    right = boundary.opening

    def wrong(reports, state):
        ended = any(report.place is LoopPosition.FINISHED for report in reports)
        return None if ended else right(reports, state)

    monkeypatch.setattr(boundary, "opening", wrong)
    assert found("every run ends")


@pytest.mark.long
def test_a_stop_that_all_ask_for_and_that_is_forgotten_until_the_next_round_is_found(monkeypatch):
    monkeypatch.setattr(boundary, "stopped_by_all", lambda reports, state: False)
    assert found("a stop that all ask for between epochs is the end", "what is lost is counted")


@pytest.mark.long
def test_a_crash_loop_that_is_replaced_for_ever_is_found(monkeypatch):
    monkeypatch.setattr(membership, "crash_looped", lambda state: False)
    assert found("every run ends")


def test_a_window_that_is_not_replayed_is_found(monkeypatch):
    monkeypatch.setattr(consumption, "window_order", lambda deal, rank, window, size: np.arange(size))
    assert found("the ledger knows", "no sample twice", "what is lost is counted")


def test_a_split_range_dealt_twice_is_found(monkeypatch):
    right = spans._stretch

    def wrong(line, rank):
        items = right(line, rank)
        items[:1, 1] = 0  # the rank's first item begins with the rows of the rank before
        return items

    monkeypatch.setattr(spans, "_stretch", wrong)
    assert found("dealt once", "no sample twice", before=spans.spans.cache_clear)


def test_prefetch_that_counts_is_found(monkeypatch):
    def wrong(*arguments):
        ready = None
        for batch in batching._whole(*arguments):
            if ready is not None:
                ready.cursor = batch.cursor
                yield ready
            ready = batch
        yield ready

    monkeypatch.setattr(streams, "batches", wrong)
    assert found("last sample made of it", "the ledger knows")


def test_a_packers_rows_that_are_dropped_are_found(monkeypatch):
    monkeypatch.setattr(Chain, "oldest", property(lambda self: None))
    assert found("last sample made of it")


def test_lengths_that_are_not_told_are_found(monkeypatch):
    monkeypatch.setattr(ListRows, "news", lambda self: {})
    assert found("must be known first")


def test_pending_rows_that_are_dealt_anew_are_found(monkeypatch):
    monkeypatch.setattr(controller_streams, "pending_rows", lambda *_: {})
    assert found("no sample twice", "the ledger knows")


def across_epochs_of_a_stream(seed):
    """Whether the seed's rounds go across epochs of a stream: only there the bugs below have an effect."""
    scenario = random_scenario(seed)
    return scenario.settings.program.across_epochs and scenario.loop.stream is not None


def test_a_next_epoch_that_begins_at_a_wrong_row_is_found(monkeypatch):
    right = streams.list_batches

    def wrong(deal, start, epoch, read):
        def late(own, position):
            yield from read(own, position + (own.epoch > deal.epoch and position == 0))

        return right(deal, start, epoch, late)

    monkeypatch.setattr(streams, "list_batches", wrong)
    assert found("the ledger knows", "last sample made of it", only=across_epochs_of_a_stream)


def test_an_epoch_that_is_closed_while_a_cursor_is_inside_is_found(monkeypatch):
    right = StreamLedger.pass_to

    def wrong(self, epoch, deal, cursors, lengths=None):
        first = min(deal.epoch + max(cursors) // PART, deal.epochs - 1)
        return right(self, max(epoch, first), deal, cursors, lengths)

    monkeypatch.setattr(StreamLedger, "pass_to", wrong)
    assert found("the ledger knows", "what is lost is counted", "dealt once", only=across_epochs_of_a_stream)


def test_uncommitted_steps_that_keep_their_positions_in_a_new_deal_are_found(monkeypatch):
    monkeypatch.setattr(view_entry, "_taken_anew", lambda member, order: member.taken)
    assert found("the ledger knows", "no sample twice", "last sample", only=across_epochs_of_a_stream)


def test_pending_rows_of_a_later_epoch_that_are_dealt_anew_are_found(monkeypatch):
    right = StreamLedger._ahead
    monkeypatch.setattr(StreamLedger, "_ahead", lambda self, epoch, _: right(self, epoch, ()))
    assert found("dealt once", "no sample twice", "the ledger knows", only=across_epochs_of_a_stream)
