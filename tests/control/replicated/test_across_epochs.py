"""Rounds across epochs: when epochs close, who is through, what is left, as all members compute it alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raysgd_local.algorithms.schedules import Dynamic, FixedPeriod
from raysgd_local.control.control_slots import Contribution, Control, Flags
from raysgd_local.control.replicated.endings import evaluated
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import Replicated, commit

PROGRAM = Program(FixedPeriod(64), across_epochs=True)
STATE = Replicated(
    FixedPeriod(64).init(),
    open=True,
    cursors=(0, 0),
    lengths=(24, 24),
    left_epoch=(False, False),
    epochs=3,
    later=((24, 24),),
    loops=(0, 0),
    skips=(0, 0),
)


def after(state, *said, program=PROGRAM):
    """The state after a round of which each member says (steps, consumed, epoch of its loop, flags)."""
    slots = (Contribution(float(c), steps=s, samples=c, consumed=c, epoch=e, flags=f) for s, c, e, f in said)
    return commit(state, Control(tuple(slots)), program)


def plain(steps, epoch, flags=Flags.NONE):
    return (steps, steps, epoch, flags)


def test_a_period_of_64_goes_on_through_epochs_of_24_steps():
    state = after(STATE, plain(64, 2), plain(64, 2))
    assert (state.epoch, state.open, state.cursors, state.lengths) == (2, True, (64, 64), (72, 72))
    state = after(state, plain(8, 2), plain(8, 2))
    assert (state.epoch, state.open) == (3, False)


def test_an_epoch_closes_once_all_have_passed_its_end():
    state = after(STATE, plain(25, 1), plain(23, 0))
    assert state.epoch == 0
    assert after(state, plain(1, 1), plain(1, 0)).epoch == 1


def test_a_rank_has_samples_up_to_the_end_of_the_last_epoch():
    state = after(STATE, plain(64, 2), plain(64, 2))
    assert not state.used_up(0, taken=7)
    assert state.used_up(0, taken=8)
    assert state.list_ends == (72, 72)


def test_loops_with_data_of_their_own_say_in_which_epoch_they_are():
    own = replace(STATE, lengths=None, later=())
    state = after(own, (3, 0, 1, Flags.NONE), (3, 0, 0, Flags.NONE))
    assert (state.epoch, state.loops) == (0, (1, 0))
    state = after(state, (3, 0, 2, Flags.NONE), (3, 0, 1, Flags.NONE))
    assert state.epoch == 1
    state = after(state, (1, 0, 2, Flags.LEFT), (1, 0, 2, Flags.LEFT))
    assert (state.epoch, state.open) == (3, False)


def test_samples_that_all_left_behind_are_dealt_no_more_and_the_next_epoch_is_dealt_anew():
    state = after(STATE, plain(5, 0, Flags.LEFT), plain(5, 0, Flags.LEFT))
    assert (state.epoch, state.open, state.redeal, state.needs_deal) == (1, True, True, True)


def test_samples_that_one_left_behind_are_dealt_to_the_others():
    state = after(STATE, plain(5, 0, Flags.LEFT), plain(5, 0))
    assert (state.epoch, state.left_behind, state.needs_deal) == (0, True, True)


def test_a_target_that_is_reached_in_the_midst_of_a_round_ends_training_after_one_more_averaging():
    state = evaluated(STATE, {"accuracy": 0.9}, ("accuracy", 0.8), pending=10)
    assert state.drain
    assert state.stopped == "accuracy reached 0.8"
    done = after(state, plain(5, 0), plain(5, 0))
    assert (done.drain, done.stopped) == (False, "accuracy reached 0.8")
    assert not evaluated(STATE, {"accuracy": 0.9}, ("accuracy", 0.8)).drain


def test_a_target_ends_training_after_an_averaging_over_all_of_steps_that_rounds_in_part_left_apart():
    """Found by seeds 4957 and 7580 of the random search."""
    parts = replace(PROGRAM, schedule=Dynamic(every=1, delta=1.0))
    apart = replace(STATE, owed=(4.0, 0.0), schedule=parts.schedule.init())
    assert apart.period.mode == "partial"
    state = evaluated(apart, {"accuracy": 0.9}, ("accuracy", 0.8))
    assert state.drain
    done = after(state, plain(0, 0), plain(0, 0), program=parts)
    assert (done.drain, done.settled) == (False, True)


@pytest.mark.parametrize(
    ("flags", "begun"), [(Flags.NONE, 1), (Flags.EVALUATES, 0), (Flags.BETWEEN, 0)], ids=["in", "after", "between"]
)
def test_once_training_is_over_all_loops_go_as_far_as_the_first_of_them(flags, begun):
    stops = replace(PROGRAM, max_steps=1)
    state = after(STATE, plain(24, 0), (1, 1, 1, flags), program=stops)
    assert state.begun == begun


def test_loops_that_want_different_things_are_told_by_rank():
    waits, trains = plain(0, 1, Flags.EVALUATES), plain(3, 1)
    assert dict(after(STATE, waits, trains).at_odds) == {0: "evaluates (ctx.evaluate)", 1: "trains in epoch 1"}
    assert not after(STATE, waits, plain(3, 0)).at_odds  # it is still in the epoch before that evaluation
    ended = (0, 0, 0, Flags.LEFT | Flags.ENDED)  # two epochs ago: found by seed 19350, which never ended
    assert dict(after(STATE, (0, 0, 2, Flags.EVALUATES), ended).at_odds)[1] == "has ended its loop"
