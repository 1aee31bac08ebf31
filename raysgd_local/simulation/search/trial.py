"""Run one scenario, with workers whose model is a number, and check every invariant after every event."""

from __future__ import annotations

from dataclasses import dataclass

from raysgd_local.control.controller import machine as controller
from raysgd_local.control.controller.events import Finish, RecordEvent
from raysgd_local.control.controller.state import Controller
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.control.run_events import EventName
from raysgd_local.faults.language import Fault
from raysgd_local.records import EvalRow
from raysgd_local.serialization import to_plain
from raysgd_local.simulation.engine.fleet import Fleet
from raysgd_local.simulation.engine.scenario import Scenario
from raysgd_local.simulation.engine.violation import violated
from raysgd_local.simulation.engine.world import World
from raysgd_local.simulation.search.end_check import judge
from raysgd_local.simulation.search.invariants import InvariantChecker
from raysgd_local.simulation.search.worker import SimulatedWorker


@dataclass(frozen=True)
class TrialResult:
    """The outcome of a scenario."""

    finish: Finish
    now: float  # virtual time at the end
    events: int  # number of simulated events
    rounds: tuple[RoundRow, ...]
    evaluations: tuple[EvalRow, ...]
    controller: Controller  # its last state
    recorded: tuple[tuple[float, RecordEvent], ...]  # virtual time and line of `events.jsonl`
    fired: tuple[Fault, ...]  # faults that happened


def run_trial(scenario: Scenario) -> TrialResult:
    """Run to the end. Raises `Violated` if an invariant does not hold at any moment."""
    stream = scenario.loop.stream
    watch, hired = InvariantChecker(stream), list[SimulatedWorker]()

    def hire(name: str, node: str, world: World) -> SimulatedWorker:
        hired.append(SimulatedWorker(name, node, world, watch, scenario))
        return hired[-1]

    fleet = Fleet(scenario, hire, watch)
    try:
        finish = fleet.run()
    finally:
        for worker in hired:
            worker.unwind()
    rows = scenario.loop.samples if stream is None else sum(stream.lengths)
    watch.ended(fleet.controller, rows, bool(scenario.loop.early or scenario.loop.quits))
    lost = [said.fields["worker"] for _, said in watch.events if said.event == EventName.WORKER_LOST]
    judge(finish, fleet.fired, fleet.controller, scenario, fleet.pace, lost)
    _replay(fleet)
    return TrialResult(
        finish,
        fleet.now,
        fleet.happened,
        tuple(watch.rounds),
        tuple(watch.evaluations),
        fleet.controller,
        tuple(watch.events),
        tuple(fleet.fired),
    )


def _replay(fleet: Fleet) -> None:
    """Check that the same events give the same commands."""
    state = fleet.journal_began
    for heard in fleet.journal:
        state, again = controller.advance(state, heard.event, heard.now)
        if to_plain(again) != to_plain(heard.commands):
            violated("a journal can be replayed", f"{heard.event}: {again} instead of {heard.commands}")
