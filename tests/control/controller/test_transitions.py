"""Phases and standings: each transition of the tables happens, no other can, and the docs show the same tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from controller_run import Run, row, started

from raysgd_local.control.controller import events as c
from raysgd_local.control.controller import state as states
from raysgd_local.control.controller import transitions
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.control.controller.state import Ended, Starting, Turn
from raysgd_local.control.controller.transitions import PHASES, STANDINGS, Phase, Standing
from raysgd_local.control.messages import LoopPosition

PAGE = Path(__file__).parents[3] / "docs" / "architecture.md"
ALL = [(before, after) for table in (PHASES, STANDINGS) for before, targets in table.items() for after in targets]
NO_LAST = CheckpointPolicy(every_epochs=None, last=False)
DONE = {"round": 1, "steps": 4, "samples": 8, "elapsed_s": 1.0, "open": False, "epoch": 1, "cursors": (4, 4)}


def stopped(run):
    run.tell(c.StopRequested("enough"))


def timer(run, name):
    run.tell(c.Timer(run.state.timers[name]))


def lost(run, *workers):
    for worker in workers:
        run.tell(c.Died(worker, "killed"))


def broken(**settings):
    """A view that broke, with one survivor still to arrive."""
    run = started(**settings)
    lost(run, "w1")
    return run


def paused():
    run = broken(workers_min=2)
    run.arrive("w0", broken="cut")
    return run


def paused_after_a_round():
    """A survivor's pending steps are brought to their round's end before the run pauses."""
    run = broken(workers_min=2)
    run.arrive("w0", steps=2, broken="cut")
    run.arrive("w0")


def restoring():
    """All members are lost before the first round is committed."""
    run = started()
    lost(run, "w0", "w1")
    return run


def finished(arrivals=2, **changes):
    """Training is over, and no last checkpoint is wanted."""
    run = started(checkpoints=NO_LAST)
    for worker in ("w0", "w1")[:arrivals]:
        run.arrive(worker, LoopPosition.FINISHED, state=DONE, rounds=(row(1),), **changes)
    return run


def finished_after_a_break():
    run = finished(1)
    run.arrive("w1", LoopPosition.FINISHED, state=DONE, rounds=(row(1),), broken="cut")


def stopped_while_paused():
    stopped(paused())


def resumed_without_state():
    """All members die while the run is paused, so those that come next find nobody with the state."""
    run = paused()
    lost(run, "w0")
    run.up("w2", "w3")


def leaves():
    run = started()
    run.tell(c.DrainNotice("w1", "SIGTERM"))
    for worker in ("w0", "w1"):
        run.arrive(worker)


def put_off():
    run = started()
    run.arrive("w0", steps=2, broken="cut")
    order = run.order()
    report = run.report("w1", LoopPosition.START, order, broken="cut")
    run.tell(c.Arrived(states.replace(report, replicated=None)))


STORIES = {
    (Phase.STARTING, Phase.RUNNING): started,
    (Phase.STARTING, Phase.ENDED): lambda: stopped(Run()),
    (Phase.RUNNING, Phase.RUNNING): started,
    (Phase.RUNNING, Phase.RESOLVING): broken,
    (Phase.RUNNING, Phase.PAUSED): paused_after_a_round,
    (Phase.RUNNING, Phase.RESTORING): resumed_without_state,
    (Phase.RUNNING, Phase.FINISHING): finished,
    (Phase.RUNNING, Phase.ENDED): lambda: lost(started(max_losses=0), "w1"),
    (Phase.RESOLVING, Phase.RUNNING): lambda: broken().arrive("w0", broken="cut"),
    (Phase.RESOLVING, Phase.PAUSED): paused,
    (Phase.RESOLVING, Phase.RESTORING): restoring,
    (Phase.RESOLVING, Phase.FINISHING): finished_after_a_break,
    (Phase.RESOLVING, Phase.ENDED): lambda: lost(broken(max_losses=1), "w0"),
    (Phase.PAUSED, Phase.RUNNING): stopped_while_paused,
    (Phase.PAUSED, Phase.ENDED): lambda: timer(paused(), "pause"),
    (Phase.RESTORING, Phase.RUNNING): lambda: restoring().up("w2", "w3"),
    (Phase.RESTORING, Phase.ENDED): lambda: timer(restoring(), "start"),
    (Phase.FINISHING, Phase.ENDED): lambda: timer(finished(), "exit"),
    (Standing.REQUESTED, Standing.UP): started,
    (Standing.REQUESTED, Standing.GONE): lambda: lost(Run(), "w0"),
    (Standing.UP, Standing.READY): started,
    (Standing.UP, Standing.GONE): lambda: Run().tell(c.WorkerUp("w0", "n", 1), c.Died("w0", "killed")),
    (Standing.READY, Standing.MEMBER): started,
    (Standing.READY, Standing.GONE): lambda: [run := Run(), run.up("w0"), lost(run, "w0")],
    (Standing.MEMBER, Standing.READY): put_off,
    (Standing.MEMBER, Standing.LEAVING): leaves,
    (Standing.MEMBER, Standing.GONE): broken,
    (Standing.LEAVING, Standing.GONE): leaves,
}


@pytest.mark.parametrize(("before", "after"), ALL, ids=lambda state: state.name)
def test_each_transition_of_the_tables_happens(before, after, monkeypatch):
    seen, right = Counter(), transitions.check

    def check(table, *transition):
        seen[transition] += 1
        right(table, *transition)

    monkeypatch.setattr(states, "check", check)
    STORIES[before, after]()
    assert seen[before, after]


def test_a_transition_that_no_table_has_is_a_bug_and_is_named():
    turn = Turn(states.Controller(Run().state.settings, stage=Ended(None)), 0.0)
    with pytest.raises(AssertionError, match="ENDED -> STARTING"):
        turn.enter(Starting())
    turn = Turn(Run().state, 0.0)
    with pytest.raises(AssertionError, match="REQUESTED -> MEMBER"):
        turn.stand("w0", Standing.MEMBER)


@pytest.mark.parametrize("table", [PHASES, STANDINGS])
def test_every_state_has_a_row_and_is_reached(table):
    states = set(type(next(iter(table))))
    reached = {after for targets in table.values() for after in targets}
    assert set(table) == states
    assert states - reached == {next(iter(table))}


@pytest.mark.parametrize(("name", "table"), [("phases", PHASES), ("standings", STANDINGS)])
def test_the_page_shows_the_tables(name, table):
    begin, end = f"<!-- {name}: drawn by transitions.diagram -->\n```mermaid\n", "```\n<!-- end -->"
    shown = PAGE.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    drawn = transitions.diagram(table) + "\n"
    assert shown == drawn, f"put this into {PAGE}, between the lines of {begin!r} and {end!r}:\n{drawn}"
