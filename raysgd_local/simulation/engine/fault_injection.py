"""Make the faults of `--chaos` happen in a simulated fleet. `runtime.fault_injection` does it to real processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from raysgd_local.control.controller.events import (
    Command,
    Died,
    Event,
    Finish,
    Form,
    Progress,
    UserError,
    WorkerUp,
)
from raysgd_local.faults import schedule
from raysgd_local.faults.language import Fault
from raysgd_local.faults.schedule import ANYONE, Alarm, Reached, RoundWatch, Strike, Victim
from raysgd_local.simulation.engine.fault_effects import FaultyFleet, suffer
from raysgd_local.simulation.engine.world import Process


class InjectedFleet(FaultyFleet, Protocol):
    """The part of a fleet that an injector uses."""

    finish: Finish | None  # the run's end; None before it

    def fire(self, fault: Fault, worker: str) -> None:
        """Record that a fault happens now, to `worker`; empty for a fault of the run."""
        ...


class SimulatedInjector:
    """Feeds the controller's events and orders to the fault schedule, and makes due faults happen in virtual time.

    A drawn fault hits one of the workers whose processes run, whether the controller knows of it or not.
    """

    def __init__(self, faults: tuple[Fault, ...], fleet: InjectedFleet) -> None:
        self._fleet = fleet
        self._chaos = schedule.begin(faults)
        self._at_event = self._chaos.at_event()
        self._watches: list[RoundWatch] = []

    @property
    def unfired(self) -> tuple[Fault, ...]:
        """Faults of `--chaos` that have not happened."""
        return tuple(fault for fault in self._chaos.pending.values() if not fault.drawn)

    def see(self, event: Event, commands: tuple[Command, ...]) -> None:
        """Take a turn of the controller: its event and its commands."""
        if isinstance(event, WorkerUp | Died | UserError):
            self._advance(event)
        for command in commands:
            if isinstance(command, Form):
                self._advance(command)

    def happened(self, count: int) -> None:
        """Take the end of the simulation's event number `count`."""
        for number in self._at_event.get(count, ()):
            self._reach(number)

    def committed(self, worker: Process, view: int, round: int) -> None:
        """Take a worker's commit. This runs inside the worker's call, so its consequences are queued as events."""
        if not self._chaos.began:
            self._advance(Progress(worker.name, view, round, 0))
        for watch in [w for w in self._watches if w.worker in (ANYONE, worker.name)]:
            if watch.view == view and watch.round <= round and watch in self._watches:
                self._watches = [other for other in self._watches if other.number != watch.number]
                self._reach_later(worker, watch)

    def _reach_later(self, worker: Process, watch: RoundWatch) -> None:
        """Queue the fault. A process that watches for its own fault queues nothing while it is dead or stopped."""
        if watch.worker == ANYONE:
            self._fleet.at(0.0, partial(self._reach, watch.number))
        else:
            self._fleet.after(0.0, worker, partial(self._reach, watch.number))

    def restarted(self) -> None:
        """Go on under another driver."""
        self._chaos, self._watches = schedule.restarted(self._chaos), []

    def _reach(self, number: int) -> None:
        workers = self._fleet.workers.values()
        running = tuple(Victim(worker.name, worker.node, 0) for worker in workers if worker.alive)
        self._advance(Reached(number, running))

    def _advance(self, event: Event | Form | Reached) -> None:
        if self._fleet.finish is not None:
            return
        self._chaos, commands = schedule.advance(self._chaos, event)
        for command in commands:
            match command:
                case RoundWatch():
                    self._watches.append(command)
                case Alarm(number, delay_s):
                    self._fleet.at(delay_s, self._alarm(number))
                case Strike(_, fault, victims):
                    self._strike(fault, victims)

    def _alarm(self, number: int) -> Callable[[], None]:
        """Return the alarm's action. A driver's alarms die with it, except those of failures drawn from rates."""
        generation, drawn = self._fleet.generation, self._chaos.pending[number].drawn
        return lambda: self._reach(number) if drawn or generation == self._fleet.generation else None

    def _strike(self, fault: Fault, victims: tuple[Victim, ...]) -> None:
        if self._fleet.finish is not None:
            return
        self._fleet.fire(fault, ", ".join(victim.worker for victim in victims))
        workers = [self._fleet.workers.get(victim.worker) for victim in victims]
        suffer(self._fleet, fault, [worker for worker in workers if worker is not None and worker.alive])
