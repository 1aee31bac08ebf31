"""One scenario under watch: workers whose model is a number, and every invariant asserted after every event."""

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
class Ended:
    """How a simulated run ended, at virtual time `now`; `fired` are the faults that happened."""

    finish: Finish
    now: float
    events: int
    rounds: tuple[RoundRow, ...]
    evaluations: tuple[EvalRow, ...]
    controller: Controller
    recorded: tuple[tuple[float, RecordEvent], ...]
    fired: tuple[Fault, ...]


def run_trial(scenario: Scenario) -> Ended:
    """The whole run. Raises `Violated` if an invariant does not hold at any moment of it."""
    watch, hired = InvariantChecker(), list[SimulatedWorker]()

    def hire(name: str, node: str, world: World) -> SimulatedWorker:
        hired.append(SimulatedWorker(name, node, world, watch, scenario))
        return hired[-1]

    fleet = Fleet(scenario, hire, watch)
    try:
        finish = fleet.run()
    finally:
        for worker in hired:
            worker.unwind()
    watch.ended(fleet.controller, scenario.loop.samples, bool(scenario.loop.early))
    lost = [said.fields["worker"] for _, said in watch.events if said.event == EventName.WORKER_LOST]
    judge(finish, fleet.fired, fleet.controller, scenario, fleet.pace, lost)
    _replay(fleet)
    return Ended(
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
    """The same inputs give the same commands."""
    state = fleet.journal_began
    for heard in fleet.journal:
        state, again = controller.advance(state, heard.event, heard.now)
        if to_plain(again) != to_plain(heard.commands):
            violated("a journal can be replayed", f"{heard.event}: {again} instead of {heard.commands}")
