"""How faults happen to a simulated fleet."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raysgd_local.control.controller import events as c
from raysgd_local.control.member.events import LeaveAsked
from raysgd_local.faults.language import UNTARGETED, Fault
from raysgd_local.simulation.engine.world import Process

if TYPE_CHECKING:
    from raysgd_local.simulation.engine.fleet import Fleet


def fire(fleet: Fleet, fault: Fault) -> None:
    """Let `fault` happen now, if there is anybody whom it can happen to."""
    if fleet.finish is not None:
        return
    if fault.kind in UNTARGETED:
        fleet.fire(fault, "")
        _ANYWHERE[fault.kind](fleet)
        return
    targets = _targets(fleet, fault)
    if targets:
        fleet.fire(fault, ", ".join(worker.name for worker in targets))
    for worker in targets:
        _ON_WORKER[fault.kind](fleet, worker, fault)


def _targets(fleet: Fleet, fault: Fault) -> list[Process]:
    """Numbers beyond the last begin anew: a drawn one always means somebody, if there is anybody."""
    members = fleet.controller.view.members if fleet.controller.view else ()
    joining = fault.among == "joiners"
    alive = [w for w in fleet.workers.values() if w.alive and (w.name in members) != joining]
    if not joining:
        alive.sort(key=lambda w: members.index(w.name))
    if not alive:
        return []
    if fault.among == "nodes":
        nodes = list(dict.fromkeys(w.node for w in alive))
        return [w for w in alive if w.node == nodes[fault.target % len(nodes)]]
    return [alive[fault.target % len(alive)]]


def _stop(fleet: Fleet, worker: Process, fault: Fault) -> None:
    worker.frozen = True
    if math.isfinite(fault.amount):
        fleet.at(fault.amount, lambda: _thaw(worker))


def _thaw(worker: Process) -> None:
    """What came for it meanwhile comes now, all at once."""
    worker.frozen = False
    deferred, worker.deferred = worker.deferred, []
    for action in deferred:
        action()


def _hang(fleet: Fleet, worker: Process, fault: Fault) -> None:
    worker.hung = True
    if math.isfinite(fault.amount):
        fleet.after(fault.amount, worker, worker.wake)


def _zombie(fleet: Fleet, worker: Process, fault: Fault) -> None:
    fleet.zombies[worker.name] = fault.amount
    fleet.notice(worker.name, "taken for dead")


def _drain(fleet: Fleet, worker: Process, fault: Fault) -> None:
    """A node's end is told; then all workers die that still are on it."""
    generation, node = fleet.generation, worker.node
    fleet.draining.add(node)
    nodes = tuple(sorted(fleet.draining))
    fleet.at(fleet.delay_s(), lambda: fleet.hear(c.NodesDraining(nodes), generation))
    fleet.at(fault.amount, lambda: _end_node(fleet, node))


def _end_node(fleet: Fleet, node: str) -> None:
    fleet.draining.discard(node)
    for worker in list(fleet.workers.values()):
        if worker.node == node:
            fleet.die(worker)
    fleet.hear(c.NodesDraining(tuple(sorted(fleet.draining))), fleet.generation)


def _sigterm(fleet: Fleet, worker: Process, _fault: Fault) -> None:
    worker.post(LeaveAsked())
    fleet.tell(worker.name, c.DrainNotice(worker.name, "SIGTERM"))


def _set(name: str, value: Any) -> Callable[[Fleet, Process, Fault], None]:
    return lambda _fleet, worker, _fault: setattr(worker, name, value)


_ANYWHERE: dict[str, Callable[[Fleet], None]] = {
    "interrupt": lambda fleet: fleet.advance(c.StopRequested("asked to")),
    "unpublished": lambda fleet: setattr(fleet, "unpublished", True),
    "damage": lambda fleet: fleet.damage(),
    "driver": lambda fleet: fleet.restart(),
}
_ON_WORKER: dict[str, Callable[[Fleet, Process, Fault], None]] = {
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
