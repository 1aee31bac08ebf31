"""Who was in the run when, from its events."""

from __future__ import annotations

from typing import Any

from raysgd_local.report.timeline import TimelineSpan, membership, timeline


def told(*events: tuple[float, str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"time_s": 1000.0 + at_s, "event": event, **fields} for at_s, event, fields in events]


def test_a_replacement_takes_the_lane_of_the_worker_that_it_replaces():
    line = timeline(
        told(
            (0, "worker_joined", {"worker": "w0"}),
            (0, "worker_joined", {"worker": "w1"}),
            (4, "worker_lost", {"worker": "w0", "reason": "killed"}),
            (6, "worker_joined", {"worker": "w2"}),
            (9, "worker_left", {"worker": "w1"}),
            (10, "ended", {}),
        )
    )
    assert set(line.spans) == {
        TimelineSpan("w0", 0, 0, 4, "lost", "killed"),
        TimelineSpan("w1", 1, 0, 9, "left"),
        TimelineSpan("w2", 0, 6, 10),
    }
    assert line.lanes == 2


def test_stalls_end_when_the_view_has_formed_and_pauses_when_there_are_enough():
    line = timeline(
        told(
            (0, "worker_joined", {"worker": "w0"}),
            (5, "view_formed", {"view": 2, "stall_s": 0.5}),
            (6, "view_formed", {"view": 3, "stall_s": 0.0}),
            (7, "paused", {}),
            (9, "unpaused", {}),
            (11, "paused", {}),
            (12, "ended", {}),
        )
    )
    assert line.stalls == ((4.5, 5),)
    assert line.pauses == ((7, 9), (11, 12))


def test_a_fault_is_on_its_workers_lane_and_the_drivers_above_all():
    line = timeline(
        told(
            (0, "worker_joined", {"worker": "w0"}),
            (0, "worker_joined", {"worker": "w1"}),
            (3, "chaos_fired", {"fault": "kill:1@3s", "worker": "w1"}),
            (4, "chaos_fired", {"fault": "driver@4s", "worker": ""}),
        )
    )
    assert line.faults == ((3, 1, "kill:1@3s"), (4, -1, "driver@4s"))


def test_the_time_between_two_lives_of_a_run_is_left_out():
    line = timeline(
        told(
            (0, "worker_joined", {"worker": "w0"}),
            (8, "checkpoint_written", {}),  # and then the driver was killed
            (5000, "resumed", {}),
            (5000, "worker_joined", {"worker": "w0"}),
            (5002, "ended", {}),
            (9000, "resumed", {}),
            (9000, "worker_joined", {"worker": "w0"}),
            (9005, "ended", {}),
        )
    )
    assert [(span.start_s, span.stop_s) for span in line.spans] == [(0, 8), (8, 10), (10, 15)]
    assert line.cuts == (8, 10)


def test_going_back_to_a_checkpoint_while_the_driver_lives_cuts_nothing():
    line = timeline(
        told(
            (0, "worker_joined", {"worker": "w0"}),
            (4, "worker_lost", {"worker": "w0", "reason": "killed"}),
            (9, "resumed", {}),
            (9, "worker_joined", {"worker": "w1"}),
            (12, "ended", {}),
        )
    )
    assert line.cuts == ()
    assert [(span.start_s, span.stop_s) for span in line.spans] == [(0, 4), (9, 12)]


def test_a_run_without_members_has_no_timeline_and_one_of_hundreds_has():
    assert membership([]) == membership(told((0, "ended", {}))) == ""
    many = [(0.0, "worker_joined", {"worker": f"w{number}"}) for number in range(300)]
    assert membership(told(*many, (9, "ended", {}))).startswith("<svg")
