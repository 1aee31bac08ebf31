"""Where a worker's time went, by a clock that the test moves."""

from __future__ import annotations

import pytest

from raysgd_local.training.stopwatch import Stopwatch


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time_s = 100.0

    def now(self) -> float:
        return self.time_s


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def watch(clock):
    watch = Stopwatch(clock)
    clock.time_s += 5  # before training there is set-up
    watch.start()
    return watch


def test_all_steps_of_a_round_are_work(watch, clock):
    for _ in range(4):
        clock.time_s += 0.5
        watch.work_begins()  # the loop gets control back after each step
    assert watch.exchange_begins() == (2.0, 2.0)


def test_waiting_for_others_is_training_time_but_no_work(watch, clock):
    clock.time_s += 1
    watch.exchange_begins()
    clock.time_s += 3  # the exchange
    watch.work_begins()
    clock.time_s += 2
    assert watch.exchange_begins() == (2.0, 5.0)


def test_waiting_in_the_middle_of_a_round_keeps_what_was_worked_before(watch, clock):
    clock.time_s += 1
    watch.work_ends()
    clock.time_s += 7
    watch.work_begins()
    clock.time_s += 2
    assert watch.exchange_begins() == (3.0, 10.0)


def test_evaluating_and_pausing_are_no_training_time(watch, clock):
    clock.time_s += 1
    watch.work_ends()
    began_s = watch.now()
    clock.time_s += 7
    watch.exclude(began_s)
    clock.time_s += 20
    watch.exclude_s(20)
    watch.work_begins()
    clock.time_s += 2
    assert watch.exchange_begins() == (3.0, 3.0)
