"""When faults are due and whom they happen to."""

from __future__ import annotations

from typing import Any

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.controller.events import Died, Form, Progress, WorkerUp
from raysgd_local.control.messages import Order, View
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.faults.language import as_drawn, parse
from raysgd_local.faults.schedule import (
    ANYONE,
    Alarm,
    Chaos,
    Reached,
    RoundWatch,
    Strike,
    Victim,
    advance,
    begin,
    restarted,
)


class Rehearsing:
    """Feeds a chaos events and keeps what it said."""

    def __init__(
        self, words: str, home: str = "", fired: frozenset[tuple[int, str]] = frozenset(), drawn: bool = False
    ) -> None:
        faults = as_drawn(parse(words)) if drawn else parse(words)
        self.state: Chaos = begin(faults, home, fired)
        self.strikes: list[tuple[str, tuple[str, ...]]] = []
        self.watches: list[RoundWatch] = []
        self.alarms: list[Alarm] = []

    def hear(self, event: Any) -> Rehearsing:
        self.state, commands = advance(self.state, event)
        for command in commands:
            match command:
                case Strike(_, fault, victims):
                    self.strikes.append((str(fault), tuple(victim.worker for victim in victims)))
                case RoundWatch():
                    self.watches.append(command)
                case Alarm():
                    self.alarms.append(command)
        return self

    def reach(self, number: int, *running: str) -> Rehearsing:
        return self.hear(Reached(number, tuple(Victim(worker, f"n{worker[1:]}", 0) for worker in running)))

    def up(self, *workers: str, per_node: int = 1) -> Rehearsing:
        for index, worker in enumerate(workers):
            self.hear(WorkerUp(worker, f"n{index // per_node}", 100 + index))
        return self

    def view(self, number: int, *members: str) -> Rehearsing:
        program = Program(FixedPeriod(1))
        order = Order(View(number, members), 1, program, Replicated(schedule=program.schedule.init()))
        return self.hear(Form(order, members))


def test_seconds_count_from_the_first_committed_round():
    run = Rehearsing("kill:1@5s; nan:0@round=2").up("w0", "w1").view(1, "w0", "w1")
    assert run.alarms == []
    run.hear(Progress("w0", 1, 1, 4)).hear(Progress("w1", 1, 1, 4))
    assert run.alarms == [Alarm(0, 5.0)]
    assert run.strikes == []
    assert run.hear(Reached(0)).strikes == [("kill:1@5s", ("w1",))]
    assert run.hear(Reached(0)).strikes == [("kill:1@5s", ("w1",))]


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


def test_a_fault_waits_for_a_victim():
    run = Rehearsing("kill:1@5s; kill:j0@6s").up("w0", "w1").view(1, "w0", "w1")
    run.hear(Died("w1", "by itself")).hear(Reached(0)).hear(Reached(1))
    assert run.strikes == []
    run.hear(WorkerUp("w2", "n2", 7))
    assert run.strikes == [("kill:j0@6s", ("w2",))]
    run.view(2, "w0", "w2")
    assert run.strikes[1:] == [("kill:1@5s", ("w2",))]


def test_a_rank_beyond_the_last_waits_until_there_is_one():
    run = Rehearsing("kill:2@5s").up("w0", "w1", "w2").view(1, "w0", "w1").hear(Reached(0))
    assert run.strikes == []
    assert run.view(2, "w0", "w1", "w2").strikes == [("kill:2@5s", ("w2",))]


def test_a_dead_member_keeps_its_rank_until_the_next_view():
    run = Rehearsing("kill:1@5s").up("w0", "w1", "w2").view(1, "w0", "w1", "w2").hear(Died("w0", "by itself"))
    assert run.hear(Reached(0)).strikes == [("kill:1@5s", ("w1",))]


def test_what_fired_in_an_earlier_life_of_the_run_does_not_fire_again():
    run = Rehearsing("kill:0@1s; kill:0@1s", fired=frozenset({(0, "kill:0@1s")})).up("w0").view(1, "w0")
    run.hear(Progress("w0", 1, 1, 1)).hear(Reached(0)).hear(Reached(1))
    assert run.alarms == [Alarm(1, 1.0)]
    assert run.strikes == [("kill:0@1s", ("w0",))]


def test_another_driver_counts_seconds_anew_and_knows_no_worker_of_the_one_before():
    run = Rehearsing("kill:0@1s; kill:0@9s").up("w0").view(1, "w0").hear(Progress("w0", 1, 1, 1)).hear(Reached(0))
    run.state = restarted(run.state)
    assert run.hear(Reached(1)).strikes == [("kill:0@1s", ("w0",))]
    run.up("w1").hear(Progress("w1", 1, 1, 1))
    assert run.alarms[2:] == [Alarm(1, 9.0)]
    assert run.view(1, "w1").strikes[1:] == [("kill:0@9s", ("w1",))]


def test_a_drawn_target_is_taken_modulo_the_running_candidates():
    words = "kill:7@event=1; slow:5@event=1; stop:3@event=1; kill:node4@event=1"
    run = Rehearsing(words, drawn=True).view(1, "w2", "w0", "w1")
    run.reach(0, "w0", "w1", "w2", "w3").reach(1, "w0", "w1").reach(2, "w3", "w2").reach(3, "w3", "w2", "w1")
    assert [victims for _, victims in run.strikes] == [("w0",), ("w1",), ("w2",), ("w2",)]


def test_a_drawn_fault_without_a_candidate_is_dropped():
    run = Rehearsing("kill:j2@event=1", drawn=True).view(1, "w0").reach(0, "w0")
    assert (run.strikes, run.state.pending) == ([], {})


def test_a_drawn_fault_waits_for_the_first_member_that_commits_its_round():
    run = Rehearsing("kill:6@round=3", drawn=True).view(1, "w0", "w1")
    assert run.watches == [RoundWatch(ANYONE, 1, 0, 3)]


def test_faults_are_found_by_the_event_of_the_simulation_that_they_wait_for():
    chaos = begin(parse("kill:0@event=4; driver@event=9; nan:1@event=4; nan:1@5s"))
    assert chaos.at_event() == {4: [0, 2], 9: [1]}
