"""How faults happen to a simulated fleet."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raysgd_local.control import controller_events as c
from raysgd_local.control.member_events import LeaveAsked
from raysgd_local.simulation.faults import UNTARGETED, Fault
from raysgd_local.simulation.worker import Worker

if TYPE_CHECKING:
    from raysgd_local.simulation.fleet import Fleet


def fire(fleet: Fleet, fault: Fault) -> None:
    """Let `fault` happen now, if there is anybody whom it can happen to."""
    if fleet.finish is not None:
        return
    if fault.kind in UNTARGETED:
        fleet.fired.append(fault)
        _ANYWHERE[fault.kind](fleet)
        return
    worker = _target(fleet, fault)
    if worker is not None:
        fleet.fired.append(fault)
        _ON_WORKER[fault.kind](fleet, worker, fault)


def _target(fleet: Fleet, fault: Fault) -> Worker | None:
    members = fleet.controller.view.members if fleet.controller.view else ()
    alive = [w for w in fleet.workers.values() if w.alive and (w.name in members) != fault.joiner]
    if not fault.joiner:
        alive.sort(key=lambda w: members.index(w.name))
    return alive[fault.target % len(alive)] if alive else None


def _stop(fleet: Fleet, worker: Worker, fault: Fault) -> None:
    worker.frozen = True
    if math.isfinite(fault.amount):
        fleet.at(fault.amount, lambda: _thaw(worker))


def _thaw(worker: Worker) -> None:
    """What came for it meanwhile comes now, all at once."""
    worker.frozen = False
    deferred, worker.deferred = worker.deferred, []
    for action in deferred:
        action()


def _hang(fleet: Fleet, worker: Worker, fault: Fault) -> None:
    worker.hung = True
    if math.isfinite(fault.amount):
        fleet.after(fault.amount, worker, worker.wake)


def _zombie(fleet: Fleet, worker: Worker, fault: Fault) -> None:
    fleet.zombies[worker.name] = fault.amount
    fleet.notice(worker.name, "taken for dead")


def _drain(fleet: Fleet, worker: Worker, fault: Fault) -> None:
    generation = fleet.generation
    fleet.at(fleet.delay_s(), lambda: fleet.hear(c.DrainNotice(worker.name, "preempted"), generation))
    fleet.at(fault.amount, lambda: fleet.die(worker))


def _set(name: str, value: Any) -> Callable[[Fleet, Worker, Fault], None]:
    return lambda _fleet, worker, _fault: setattr(worker, name, value)


_ANYWHERE: dict[str, Callable[[Fleet], None]] = {
    "interrupt": lambda fleet: fleet.advance(c.StopRequested("asked to")),
    "unpublished": lambda fleet: setattr(fleet, "unpublished", True),
    "driver": lambda fleet: fleet.restart(),
}
_ON_WORKER: dict[str, Callable[[Fleet, Worker, Fault], None]] = {
    "kill": lambda fleet, worker, _: fleet.die(worker),
    "vanish": lambda fleet, worker, _: fleet.die(worker, noticed=False),
    "stop": _stop,
    "hang": _hang,
    "zombie": _zombie,
    "slow": lambda _fleet, worker, fault: setattr(worker, "slow", max(1.0, fault.amount)),
    "drain": _drain,
    "sigterm": lambda _fleet, worker, _: worker.post(LeaveAsked()),
    "nan": _set("spoiled", True),
    "error": lambda _fleet, worker, _: worker.raise_error("ValueError: bad"),
    "cut": lambda _fleet, worker, _: worker.connection.leave(),
    "unwritten": _set("unwritten", True),
}
