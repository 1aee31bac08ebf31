"""Streams at boundaries: shards whose readers are gone are measured, ledgers follow, counts are kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from controller_run import Run

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.control_slots import Contribution, Control
from raysgd_local.control.controller import events as c
from raysgd_local.control.controller import streams
from raysgd_local.control.controller.checkpoints import manifest, record_of
from raysgd_local.control.controller.transitions import Phase
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.data.streams.deal import Pending
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.data.streams.parts import PART, consumed_by_epoch
from raysgd_local.control.data.streams.ranges import ROWS
from raysgd_local.control.data.streams.shards import Shards
from raysgd_local.control.messages import LoopPosition
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import ENDLESS, commit
from raysgd_local.errors import CheckpointError

UNKNOWN = Shards.of(["a", "b", "c", "d"], [None] * 4)


def started(shards=UNKNOWN, workers=2, epochs=2, **settings):
    run = Run(workers_max=workers, shuffle_window=1, interleave=1, **settings)
    names = [f"w{i}" for i in range(workers)]
    run.up(*names)
    for name in names:
        run.arrive(name, LoopPosition.OPENING, shards=shards, epochs=epochs)
    return run


def test_lists_of_a_stream_end_when_their_members_say_so():
    run = started()
    order = run.order()
    assert order.deal.names == UNKNOWN.names
    assert order.replicated.lengths == (ENDLESS, ENDLESS)
    assert order.replicated.splits == (0, 0)


def test_shards_that_only_the_dead_worker_had_read_are_measured_by_the_others():
    run = started()
    run.tell(c.Died("w1", "killed"))
    run.arrive("w0", state={"round": 1, "cursors": (0, 5)}, broken="cut", shards=UNKNOWN)
    asked = run.order()
    ((worker, wanted),) = asked.measure
    assert worker == "w0"
    assert [rows for _, rows in wanted] == [5]
    assert asked.view.number == 1
    assert run.state.phase is Phase.RUNNING

    shard = wanted[0][0]
    run.arrive(
        "w0", state={"cursors": (0, 5)}, broken="cut", shards=UNKNOWN, source=UNKNOWN.names, found=((shard, 3),)
    )
    again = run.order()  # the shard had only three rows, so two more are of the dead worker's next shard
    ((_, wanted),) = again.measure
    assert [rows for _, rows in wanted] == [2]

    found = tuple(sorted(((shard, 3), (wanted[0][0], -3))))
    run.arrive(
        "w0",
        state={"cursors": (0, 5)},
        broken="cut",
        shards=UNKNOWN,
        source=UNKNOWN.names,
        found=tuple(sorted(found)),
    )
    last = run.order()
    assert not last.measure
    assert last.view.members == ("w0",)
    ledger = run.state.books.ledger
    assert ledger.consumed_rows(0) == 5
    assert ledger.known_lengths()[shard] == 3


def test_a_worker_that_dies_while_it_measures_leaves_the_rest_to_others():
    run = started(workers=3)
    run.tell(c.Died("w2", "killed"))
    for worker in ("w0", "w1"):
        run.arrive(worker, state={"round": 1, "cursors": (0, 0, 2)}, broken="cut", shards=UNKNOWN)
    asked = dict(run.order().measure)
    measurer = next(worker for worker, wanted in asked.items() if wanted)
    other = "w1" if measurer == "w0" else "w0"
    run.arrive(other, broken="cut", shards=UNKNOWN)
    run.tell(c.Died(measurer, "killed"))
    assert [worker for worker, wanted in run.order().measure if wanted] == [other]


def test_fewer_shards_than_workers_are_measured_before_they_are_dealt():
    shards = Shards.of(["one"], [None])
    run = started(shards)
    (shard, _), *more = [wanted for _, lengths in run.order().measure for wanted in lengths]
    assert (shard, more) == (0, [])
    for worker in ("w0", "w1"):
        run.arrive(worker, LoopPosition.OPENING, shards=Shards.of(["one"], [10]), epochs=2)
    order = run.order()
    assert not order.measure
    assert order.deal.epoch == 0
    assert run.state.books.ledger.known_lengths().tolist() == [10]


def test_rows_that_were_split_are_counted_for_the_living_and_the_dead():
    run = started(Shards.of(["a", "b"], [50, 50]))
    run.tell(c.Died("w1", "killed"))
    run.arrive("w0", state={"round": 1, "cursors": (4, 4), "splits": (2, 3)}, broken="cut", split=5, rows_split=1)
    assert run.state.books.ledger.rows_split == 3 + 5 + 1  # the dead one's, the other's present ones, and its own
    assert run.state.books.replicated.splits == (0,)


def test_rows_that_a_leaver_has_split_are_counted_and_none_at_an_epochs_end():
    run = started(Shards.of(["a", "b"], [50, 50]))
    run.tell(c.DrainNotice("w1", "SIGTERM"))
    for worker in ("w0", "w1"):
        run.arrive(worker, state={"round": 1, "cursors": (4, 4), "splits": (2, 3)}, split=2)
    assert run.order().view.members == ("w0",)
    assert run.state.books.ledger.rows_split == 2 + 3
    run.arrive("w0", LoopPosition.OPENING, state={"open": False, "epoch": 1}, shards=UNKNOWN, split=1)
    assert run.state.books.ledger.rows_split == 2 + 3


def test_a_ledger_passes_its_counts_on_when_the_training_set_becomes_another():
    stream = streams.opened(Ledger(deals=3, samples_lost=2, samples_repeated=1), 1, UNKNOWN)
    assert (stream.deals, stream.rows_lost, stream.rows_repeated, stream.epoch) == (3, 2, 1, 1)
    other = streams.opened(replace(stream, open=(), rows_split=4), 2, Shards.of(["x"], [5]))
    assert (other.deals, other.rows_lost, other.rows_split, other.shards) == (3, 2, 4, 1)
    back = streams.map_style(other)
    assert (back.deals, back.samples_lost, back.samples_repeated) == (3, 2, 1)


def test_a_checkpoint_of_a_stream_is_read_as_it_was_written():
    run = started(Shards.of(["a", "b", "c"], [4, None, 9]))
    names = run.order().deal.names
    run.tell(c.StopRequested("interrupted"))
    for worker in ("w0", "w1"):
        run.arrive(worker, state={"round": 1, "cursors": (2, 3), "splits": (1, 0)}, source=names, found=((1, -3),))
    order = run.order()
    saved = run.state.saves.writing[order.save.name].snapshot
    assert saved.found == ((1, -3),)
    read = record_of(manifest(saved, ()))
    assert isinstance(read.ledger, StreamLedger)
    assert (read.ledger, read.deal, read.found) == (saved.ledger, saved.deal, saved.found)

    damaged = manifest(replace(saved, ledger=replace(saved.ledger, names="another")), ())
    with pytest.raises(CheckpointError, match="another source"):
        record_of(damaged)
    with pytest.raises(CheckpointError, match="none of 3"):
        record_of(manifest(replace(saved, found=((7, 1),)), ()))
    broken = manifest(saved, ())
    broken["ledger"]["lengths"] = "ff" * 9
    with pytest.raises(CheckpointError):
        record_of(broken)


def test_a_run_that_resumes_counts_rows_split_where_its_readers_stood():
    run = started(Shards.of(["a", "b"], [50, 50]))
    run.tell(c.StopRequested("interrupted"))
    for worker in ("w0", "w1"):
        run.arrive(worker, state={"round": 1, "cursors": (4, 4), "splits": (2, 3)})
    order = run.order()
    saved = run.state.saves.writing[order.save.name].snapshot
    assert saved.ledger.rows_split == 0
    again = Run(workers_max=2, resume=saved)
    again.up("w0", "w1")
    assert again.state.books.ledger.rows_split == 5
    assert again.order().deal == saved.deal


def test_known_lengths_of_a_source_are_those_it_tells():
    assert np.array_equal(Shards.of(["a", "b"], [3, None]).known_lengths(), [3, -1])


def test_a_shard_that_was_changed_during_the_run_ends_it_with_a_reason():
    run = started(Shards.of(["a", "b"], [5, None]))
    names = run.order().deal.names
    run.tell(c.StopRequested("interrupted"))
    for worker in ("w0", "w1"):
        run.arrive(worker, state={"round": 1, "cursors": (1, 1)}, source=names, found=((0, 4),))
    (finish,) = [said for said in run.said if isinstance(said, c.Finish)]
    assert finish.status == "failed"
    assert "shard number 0 has 4 rows now, and had 5" in finish.reason


def test_a_source_with_other_lengths_in_the_next_epoch_is_another_one():
    ledger = streams.opened(Ledger(), 0, Shards.of(["a", "b"], [5, None]))
    other = streams.opened(replace(ledger, open=(), rows_lost=3), 1, Shards.of(["a", "b"], [6, None]))
    assert (other.known_lengths().tolist(), other.rows_lost) == ([6, -1], 3)


def test_where_no_survivor_has_the_source_the_run_goes_back_to_a_checkpoint_rather_than_guess():
    """Its loop has not come to `ctx.batches` yet. Here there is no checkpoint."""
    run = started()
    run.tell(c.Died("w1", "killed"))
    run.arrive("w0", state={"round": 1, "cursors": (0, 5)}, broken="cut")
    (finish,) = [said for said in run.said if isinstance(said, c.Finish)]
    assert finish.status == "lost"
    assert "no checkpoint" in finish.reason


def across(lengths, epochs=3, **settings):
    return started(
        Shards.of([str(n) for n in range(len(lengths))], lengths), across_epochs=True, epochs=epochs, **settings
    )


def test_lists_that_go_across_epochs_have_a_part_for_each_and_the_ledger_closes_those_that_all_have_passed():
    run = across([6, 6, 6, 6])
    order = run.order()
    assert (order.replicated.lengths, order.replicated.later) == ((PART, PART), ((PART, PART),))
    assert order.deal.epochs == 3
    for worker in ("w0", "w1"):
        state = {"round": 1, "epoch": 1, "cursors": (PART + 5, 2 * PART), "loops": (1, 2)}
        run.arrive(worker, state={**state, "lengths": (2 * PART, 2 * PART)})
    books = run.state.books
    assert run.order().deal == order.deal
    assert (books.ledger.epoch, books.ledger.rows_lost) == (1, 0)


def test_a_death_deals_the_rests_of_all_epochs_and_each_one_s_uncommitted_rows_come_first():
    run = across([6, 6, 6, 6])
    run.tell(c.Died("w1", "killed"))
    before = run.order().deal
    run.arrive(
        "w0", state={"round": 1, "cursors": (10, 3), "loops": (1, 0)}, taken=PART - 10 + 4, broken="cut", epoch=1
    )
    books, order = run.state.books, run.order()
    assert order.replicated.cursors == (0,)
    assert [rows.count for rows in Pending.of(order.deal, 0).by_epoch] == [2, 4]
    assert (books.ledger.consumed_rows(0), [book.epoch for book in books.ledger.open]) == (13, [0])
    lengths = np.array([6, 6, 6, 6])
    every = consumed_by_epoch(order.deal, 0, 3 * PART, lengths, range(3))
    assert {epoch: rows.count for epoch, rows in every.items()} == {0: 24 - 13, 1: 24, 2: 24}
    assert order.deal.number == before.number + 1


def test_lengths_of_shards_that_a_dead_worker_read_in_an_epoch_that_it_had_passed_are_measured():
    run = started(across_epochs=True, epochs=3)
    run.tell(c.Died("w1", "killed"))
    run.arrive("w0", state={"round": 1, "cursors": (0, PART + 3), "loops": (0, 1)}, broken="cut", shards=UNKNOWN)
    ((worker, wanted),) = run.order().measure
    assert worker == "w0"
    assert sorted(rows for _, rows in wanted)[-1] == ROWS  # to their ends: all of that epoch
    assert len(wanted) in (2, 3)  # of the next one the shard that it was in


@pytest.mark.parametrize(("lengths", "unsure"), [((6, None), True), ((6, 6), False)])
def test_later_epochs_that_were_dealt_without_all_lengths_are_dealt_again_when_the_first_closes(lengths, unsure):
    state = across(lengths).order().replicated
    assert state.unsure is unsure
    said = tuple(Contribution(4.0, steps=1, samples=4, consumed=PART, epoch=1) for _ in range(2))
    after = commit(state, Control(said), Program(FixedPeriod(2), across_epochs=True))
    assert (after.epoch, after.needs_deal) == (1, unsure)


def test_a_rank_that_has_left_an_epoch_has_no_list_of_it():
    run = across([6, 6, 6, 6])
    state = {"round": 1, "cursors": (2, 2), "loops": (1, 0), "skips": (1, 0), "left_epoch": (True, False)}
    for worker in ("w0", "w1"):
        run.arrive(worker, state=state)
    order = run.order()
    assert (order.replicated.cursors, order.replicated.left_behind) == ((PART, 0), False)


def test_a_checkpoint_across_epochs_is_read_as_it_was_written_and_one_that_contradicts_itself_is_not():
    run = across([6, 6, None, 6])
    names = run.order().deal.names
    run.tell(c.StopRequested("interrupted"))
    state = {"round": 1, "epoch": 1, "cursors": (PART + 1, PART), "lengths": (2 * PART, 2 * PART), "loops": (1, 1)}
    for worker in ("w0", "w1"):
        run.arrive(worker, state=state, source=names, found=((2, 5),))
    saved = run.state.saves.writing[run.order().save.name].snapshot
    read = record_of(manifest(saved, ()))
    assert (read.ledger, read.deal, read.replicated.cursors) == (saved.ledger, saved.deal, (PART + 1, PART))
    for damage, said in (
        ({"deal": replace(saved.deal, left=(0,))}, "other members"),
        ({"deal": replace(saved.deal, ahead=())}, "another number of shards"),
        ({"deal": replace(saved.deal, epoch=2)}, "not of the ledger's epoch"),
        ({"replicated": replace(saved.replicated, cursors=(3 * PART + 1, 0))}, "beyond its list"),
    ):
        with pytest.raises(CheckpointError, match=said):
            record_of(manifest(replace(saved, **damage), ()))
    again = Run(workers_max=2, across_epochs=True, resume=saved)
    again.up("w0", "w1", epochs=5)
    assert again.order().replicated.epochs == again.order().deal.epochs == 5
