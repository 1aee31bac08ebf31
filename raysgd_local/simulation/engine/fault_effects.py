"""The effects of faults on a simulated fleet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from raysgd_local.control.controller.events import DrainNotice, Event, NodesDraining, StopRequested
from raysgd_local.control.member.events import LeaveAsked
from raysgd_local.faults.language import Fault
from raysgd_local.simulation.engine.world import Process


class FaultyFleet(Protocol):
    """The part of a fleet on which faults take effect."""

    workers: dict[str, Process]  # by name
    generation: int  # number of the driver's life, from 0
    zombies: dict[str, float]  # by worker: seconds that it goes on after it was killed
    draining: set[str]  # nodes
    unpublished: bool  # the next manifest can't be written

    def at(self, delay_s: float, action: Callable[[], None]) -> None: ...

    def after(self, delay_s: float, worker: Process, action: Callable[[], None]) -> None: ...

    def delay_s(self) -> float:
        """Draw the delay of a message, in seconds."""
        ...

    def advance(self, event: Event) -> None: ...

    def hear(self, event: Event, generation: int) -> None: ...

    def tell(self, worker: str, event: Event) -> None: ...

    def notice(self, name: str, why: str) -> None: ...

    def die(self, worker: Process, noticed: bool = True) -> None: ...

    def damage(self) -> None: ...

    def restart(self) -> None: ...


def suffer(fleet: FaultyFleet, fault: Fault, workers: Sequence[Process]) -> None:
    """Make `fault` happen now, to `workers` or to the run."""
    if fault.kind in ON_RUN:
        ON_RUN[fault.kind](fleet)
    for worker in workers:
        ON_WORKER[fault.kind](fleet, worker, fault)


def _stop(fleet: FaultyFleet, worker: Process, fault: Fault) -> None:
    worker.frozen = True
    if math.isfinite(fault.amount):
        fleet.at(fault.amount, lambda: _thaw(worker))


def _thaw(worker: Process) -> None:
    """Let a stopped worker go on. Everything that was sent to it meanwhile arrives now."""
    worker.frozen = False
    deferred, worker.deferred = worker.deferred, []
    for action in deferred:
        action()


def _hang(fleet: FaultyFleet, worker: Process, fault: Fault) -> None:
    worker.hung = True
    if math.isfinite(fault.amount):
        fleet.after(fault.amount, worker, worker.wake)


def _zombie(fleet: FaultyFleet, worker: Process, fault: Fault) -> None:
    fleet.zombies[worker.name] = fault.amount
    fleet.notice(worker.name, "taken for dead")


def _drain(fleet: FaultyFleet, worker: Process, fault: Fault) -> None:
    """Tell the controller that the node will end; after the fault's time, end all workers that are still on it."""
    generation, node = fleet.generation, worker.node
    fleet.draining.add(node)
    nodes = tuple(sorted(fleet.draining))
    fleet.at(fleet.delay_s(), lambda: fleet.hear(NodesDraining(nodes), generation))
    fleet.at(fault.amount, lambda: _end_node(fleet, node))


def _end_node(fleet: FaultyFleet, node: str) -> None:
    fleet.draining.discard(node)
    for worker in list(fleet.workers.values()):
        if worker.node == node:
            fleet.die(worker)
    fleet.hear(NodesDraining(tuple(sorted(fleet.draining))), fleet.generation)


def _sigterm(fleet: FaultyFleet, worker: Process, _fault: Fault) -> None:
    worker.post(LeaveAsked())
    fleet.tell(worker.name, DrainNotice(worker.name, "SIGTERM"))


OnWorker = Callable[[FaultyFleet, Process, Fault], None]


def _set(name: str, value: Any) -> OnWorker:
    return lambda _fleet, worker, _fault: setattr(worker, name, value)


ON_RUN: dict[str, Callable[[FaultyFleet], None]] = {
    "unpublished": lambda fleet: setattr(fleet, "unpublished", True),
    "damage": lambda fleet: fleet.damage(),
    "interrupt": lambda fleet: fleet.advance(StopRequested("asked to")),
    "driver": lambda fleet: fleet.restart(),
}
ON_WORKER: dict[str, OnWorker] = {
    "kill": lambda fleet, worker, _: fleet.die(worker),
    "vanish": lambda fleet, worker, _: fleet.die(worker, noticed=False),
    "stop": _stop,
    "hang": _hang,
    "zombie": _zombie,
    "slow": lambda _fleet, worker, fault: setattr(worker, "slow", max(1.0, fault.amount)),
    "drain": _drain,
    "sigterm": _sigterm,
    "nan": _set("spoiled", True),
    "error": lambda _fleet, worker, _: worker.raise_error("an error of --chaos"),
    "cut": lambda _fleet, worker, _: worker.connection.leave(),
    "unwritten": _set("unwritten", True),
}
