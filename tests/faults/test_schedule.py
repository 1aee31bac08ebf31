"""When faults are due and whom they happen to."""

from __future__ import annotations

from typing import Any

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.controller.events import Died, Form, Progress, WorkerUp
from raysgd_local.control.messages import Order, View
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.faults.language import parse
from raysgd_local.faults.schedule import Chaos, Moment, Reached, RoundWatch, Strike, advance, begin


class Rehearsing:
    """Feeds a chaos events and keeps what it said."""

    def __init__(self, words: str, home: str = "", fired: frozenset[tuple[int, str]] = frozenset()) -> None:
        self.state: Chaos = begin(parse(words), home, fired)
        self.strikes: list[tuple[str, tuple[str, ...]]] = []
        self.watches: list[RoundWatch] = []

    def hear(self, event: Any, now: float = 0.0) -> Rehearsing:
        self.state, commands = advance(self.state, event, now)
        for command in commands:
            if isinstance(command, Strike):
                self.strikes.append((str(command.fault), tuple(victim.worker for victim in command.victims)))
            else:
                self.watches.append(command)
        return self

    def up(self, *workers: str, per_node: int = 1) -> Rehearsing:
        for index, worker in enumerate(workers):
            self.hear(WorkerUp(worker, f"n{index // per_node}", 100 + index))
        return self

    def view(self, number: int, *members: str) -> Rehearsing:
        program = Program(FixedPeriod(1))
        order = Order(View(number, members), 1, program, Replicated(schedule=program.schedule.init()))
        return self.hear(Form(order, members))


def test_seconds_count_from_the_first_committed_round():
    run = Rehearsing("kill:1@5s").up("w0", "w1").view(1, "w0", "w1")
    assert run.hear(Moment(), 50).state.wait_s(50) is None
    run.hear(Progress("w0", 1, 1, 4), 60)
    assert run.state.wait_s(62) == 3
    assert run.hear(Moment(), 64.9).strikes == []
    assert run.hear(Moment(), 65).strikes == [("kill:1@5s", ("w1",))]
    assert run.hear(Moment(), 70).strikes == [("kill:1@5s", ("w1",))]


def test_the_member_of_that_rank_watches_for_its_round_in_every_view():
    run = Rehearsing("nan:1@round=5").up("w0", "w1", "w2").view(1, "w0", "w1", "w2")
    run.hear(Died("w1", "killed")).view(2, "w0", "w2")
    assert run.watches == [RoundWatch("w1", 1, 0, 5), RoundWatch("w2", 2, 0, 5)]
    assert run.hear(Reached(0)).strikes == [("nan:1@round=5", ("w2",))]


def test_who_watches_for_what_happens_to_others_is_the_first_member():
    run = Rehearsing("driver@round=3; drain:node1@round=4").up("w0", "w1", "w2", per_node=2)
    run.view(1, "w0", "w1", "w2")
    assert [(watch.worker, watch.number) for watch in run.watches] == [("w0", 0), ("w0", 1)]
    assert run.hear(Reached(0)).hear(Reached(1)).strikes == [
        ("driver@round=3", ()),
        ("drain:node1x30@round=4", ("w2",)),
    ]


def test_nodes_are_numbered_by_their_first_ranks():
    run = Rehearsing("kill:node0@round=1").up("w0", "w1", "w2", "w3", per_node=2).view(1, "w3", "w0", "w2")
    assert run.hear(Reached(0)).strikes == [("kill:node0@round=1", ("w3", "w2"))]


def test_the_head_is_node_0_whether_it_has_members_or_not():
    run = Rehearsing("kill:node1@round=1; slow:node0@round=1", home="n9").up("w0", "w1").view(1, "w1", "w0")
    run.hear(Reached(0)).hear(Reached(1))
    assert run.strikes == [("kill:node1@round=1", ("w1",))]


def test_a_fault_waits_for_somebody_whom_it_can_happen_to():
    run = Rehearsing("kill:1@5s; kill:j0@6s").up("w0", "w1").view(1, "w0", "w1").hear(Progress("w0", 1, 1, 1), 0)
    run.hear(Died("w1", "by itself"), 1).hear(Moment(), 7)
    assert run.strikes == []
    assert run.state.wait_s(7) is None  # nothing but another event can help
    run.hear(WorkerUp("w2", "n2", 7), 8)
    assert run.strikes == [("kill:j0@6s", ("w2",))]


def test_a_dead_member_keeps_its_rank_until_the_next_view():
    run = Rehearsing("kill:1@5s").up("w0", "w1", "w2").view(1, "w0", "w1", "w2").hear(Progress("w0", 1, 1, 1), 0)
    run.hear(Died("w0", "by itself"), 4)
    assert run.hear(Moment(), 5).strikes == [("kill:1@5s", ("w1",))]


def test_what_fired_in_an_earlier_life_of_the_run_does_not_fire_again():
    run = Rehearsing("kill:0@1s; kill:0@1s", fired=frozenset({(0, "kill:0@1s")})).up("w0").view(1, "w0")
    run.hear(Progress("w0", 1, 1, 1), 0).hear(Moment(), 2).hear(Moment(), 3)
    assert run.strikes == [("kill:0@1s", ("w0",))]
