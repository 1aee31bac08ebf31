"""The same words strike the same workers in simulated and in real runs."""

from __future__ import annotations

from typing import Any

import pytest

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.controller.events import Command, Event, WorkerUp
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.replicated.program import Program
from raysgd_local.faults.language import Fault, parse
from raysgd_local.faults.schedule import RoundWatch
from raysgd_local.runtime import fault_effects
from raysgd_local.runtime.fault_effects import Sabotage
from raysgd_local.runtime.fault_injection import Injector
from raysgd_local.simulation.engine.fleet import Fleet
from raysgd_local.simulation.engine.loop import LoopPlan
from raysgd_local.simulation.engine.scenario import Scenario
from raysgd_local.simulation.engine.world import Process
from raysgd_local.simulation.search.invariants import InvariantChecker
from raysgd_local.simulation.search.random_scenario import QUICK
from raysgd_local.simulation.search.worker import SimulatedWorker

Struck = list[tuple[str, str]]


class Watching(InvariantChecker):
    """Keeps what the controller heard and said, and whom faults happened to."""

    def __init__(self, trace: list[Any]) -> None:
        super().__init__()
        self.trace, self.struck = trace, Struck()

    def decided(self, event: Event, commands: tuple[Command, ...], now: float) -> None:
        super().decided(event, commands, now)
        self.trace.append((event, commands))

    def fired(self, fault: Fault, worker: str, now: float) -> None:
        self.struck += [(str(fault), name) for name in worker.split(", ")]


class TracedFleet(Fleet):
    """Keeps which worker committed which round, amid what the controller heard."""

    def committed(self, worker: Process, view: int, round: int) -> None:
        self.observer.trace.append((worker.name, view, round))  # type: ignore[attr-defined]
        super().committed(worker, view, round)


def simulated(chaos: str) -> tuple[Struck, list[str], list[Any]]:
    """Whom the faults happened to in virtual time, which did not happen, and all that happened in that run."""
    settings = Settings(
        Program(FixedPeriod(2)), workers_min=1, workers_max=4, seed=3, max_failures=-1, timeouts=QUICK
    )
    scenario = Scenario(settings, LoopPlan(epochs=6, samples=200), parse(chaos), workers_a_node=2)
    watch = Watching([])
    fleet = TracedFleet(
        scenario, lambda name, node, world: SimulatedWorker(name, node, world, watch, scenario), watch
    )
    assert fleet.run().status == "finished"
    return watch.struck, list(map(str, fleet.injector.unfired)), watch.trace


class DeadError(Exception):
    """The process is gone in the midst of telling."""


class RealSide:
    """The real driver's injector and the real workers' sabotage, shown what happened in another run."""

    def __init__(self, chaos: str) -> None:
        self.records: list[dict[str, Any]] = []
        self.workers: dict[str, Sabotage] = {}
        self.injector = Injector(parse(chaos), self, lambda event: None, self.record)

    def record(self, event: str, **fields: Any) -> None:
        self.records.append({"event": event, **fields})

    def suffer(self, worker: str, fault: Fault) -> None:
        """What it does to the worker is in the trace already."""

    def watch(self, worker: str, watches: tuple[RoundWatch, ...]) -> None:
        self.workers[worker].watch(watches)

    def commit(self, worker: str, view: int, round: int) -> None:
        try:
            self.workers[worker].committed(view, round)
        except DeadError:
            del self.workers[worker]

    def replay(self, trace: list[Any]) -> tuple[Struck, list[str]]:
        for entry in trace:
            if len(entry) == 3:
                self.commit(*entry)
                continue
            event, commands = entry
            if isinstance(event, WorkerUp) and event.worker not in self.workers:
                self.workers[event.worker] = self._worker(event.worker)
            self.injector.see(event, commands)
        self.injector.close()
        struck = [(e["fault"], e["worker"]) for e in self.records if e["event"] == "chaos_fired"]
        return struck, [e["fault"] for e in self.records if e["event"] == "chaos_unfired"]

    def _worker(self, name: str) -> Sabotage:
        return Sabotage(lambda number: self.injector.reached(name, number), lambda: None)


@pytest.mark.parametrize(
    "chaos",
    [
        "kill:1@round=3; slow:2x3@round=5; kill:0@round=9",
        "kill:0@round=4; kill:0@round=4; nan:3@round=4",
        "cut:1@round=3; kill:9@round=3; hang:2x0.5@round=6; kill:j3@round=2",
        "sigterm:2@round=4; kill:node1@round=8; kill:j0@round=9; stop:1x0.5@round=12",
        "drain:3x1@round=2; kill:2@round=2; kill:3@round=2; slow:node0@round=7; error:3@round=11",
    ],
)
def test_the_same_words_strike_the_same_workers(chaos, monkeypatch):
    def die(worker: Sabotage, fault: Fault) -> None:
        raise DeadError

    for kind in fault_effects.ON_WORKER:
        effect = die if kind == "kill" else lambda worker, fault: None
        monkeypatch.setitem(fault_effects.ON_WORKER, kind, effect)
    monkeypatch.setitem(fault_effects.ON_DRIVER, "drain", lambda side, fault, victims: None)
    struck, unfired, trace = simulated(chaos)
    assert len(struck) + len(unfired) >= len(chaos.split(";"))
    assert RealSide(chaos).replay(trace) == (struck, unfired)
