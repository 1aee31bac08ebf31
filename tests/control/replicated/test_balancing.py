"""Unequal steps for workers of unequal speed: when shares change, and when they must not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raysgd_local.control.control_slots import Contribution, Control
from raysgd_local.control.replicated.balancing import EVEN, Balance, Pace, Pacing, paced, seated

BALANCE = Balance()


def after(rounds, *step_s, pacing=EVEN, tau=16, mode="parameters", round_s=1.0):
    """The pacing after so many rounds in which a step of each rank takes so long."""
    for _ in range(rounds):
        steps = [pacing.steps(tau, rank) for rank in range(len(step_s))]
        said = (
            Contribution(steps=n, compute_s=n * s, clock_s=round_s) for n, s in zip(steps, step_s, strict=True)
        )
        pacing = paced(pacing, Control(tuple(said)), BALANCE, mode)
    return pacing


def test_a_worker_at_half_speed_takes_half_the_steps_after_two_windows():
    assert after(7, 0.1, 0.1, 0.1, 0.2).shares == (1.0, 1.0, 1.0, 1.0)
    pacing = after(8, 0.1, 0.1, 0.1, 0.2)
    assert pacing.shares == (1.0, 1.0, 1.0, 0.5)
    assert pacing.changed
    assert [pacing.steps(16, rank) for rank in range(4)] == [16, 16, 16, 8]


def test_of_two_workers_the_slower_one_takes_less():
    assert after(8, 0.1, 0.2).shares == (1.0, 0.5)


def test_nothing_changes_for_workers_that_are_nearly_equal():
    assert after(200, 0.1, 0.12, 0.09, 0.125).shares == (1.0,) * 4


def test_one_slow_window_changes_nothing():
    pacing = after(4, 0.1, 0.1, 0.3)
    pacing = after(4, 0.1, 0.1, 0.1, pacing=pacing)
    assert after(4, 0.1, 0.1, 0.3, pacing=pacing).shares == (1.0, 1.0, 1.0)


def test_windows_are_not_shorter_than_their_seconds():
    assert after(20, 0.1, 0.2, round_s=0.01).shares == (1.0, 1.0)


def test_a_worker_that_recovers_gets_its_full_share_again():
    pacing = after(8, 0.1, 0.1, 0.2)
    assert after(8, 0.1, 0.1, 0.1, pacing=pacing).shares == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("tau", "expected"), [(1, 1), (2, 1), (100, 6)])
def test_nobody_takes_less_than_one_step(tau, expected):
    assert Pacing((Pace(), Pace(share=1 / 16))).steps(tau, rank=1) == expected


def test_a_faster_worker_takes_more_but_never_more_than_twice():
    assert after(8, 0.1, 0.1, 0.1, 0.02).shares == (1.0, 1.0, 1.0, 2.0)


def test_gradients_are_averaged_over_equal_steps():
    assert after(40, 0.1, 0.1, 0.2, mode="gradients").shares == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("mode", ["parameters", "gradients"])
def test_one_that_can_not_keep_up_at_all_is_found(mode):
    assert [pace.hopeless for pace in after(8, 0.1, 0.1, 0.9, mode=mode).paces] == [False, False, True]
    assert not any(pace.hopeless for pace in after(4, 0.1, 0.1, 0.9, mode=mode).paces)


def test_who_took_no_step_is_judged_by_nothing():
    idle = Contribution(steps=0, compute_s=5.0, clock_s=1.0)
    busy = Contribution(steps=4, compute_s=1.0, clock_s=1.0)
    pacing = EVEN
    for _ in range(20):
        pacing = paced(pacing, Control((busy, busy, idle)), BALANCE, "parameters")
    assert pacing.shares == (1.0, 1.0, 1.0)
    assert not pacing.changed


def test_shares_stay_with_their_workers_and_a_newcomer_begins_with_all():
    pacing = after(8, 0.1, 0.1, 0.2)
    moved = seated(pacing, ("a", "b", "c"), ("c", "b", "d"))
    assert moved.shares == (0.5, 1.0, 1.0)
    assert not moved.changed
    assert seated(replace(pacing, changed=True), (), ("x", "y", "z")).shares == pacing.shares
