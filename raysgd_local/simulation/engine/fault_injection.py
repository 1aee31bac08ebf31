"""The simulated side of `--chaos`: what `runtime.fault_injection` does for real processes."""

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
    """What an injector needs of a fleet."""

    finish: Finish | None  # how the run ended

    def fire(self, fault: Fault, worker: str) -> None:
        """Tell that a fault happens now, to `worker` if to any."""
        ...


class Injector:
    """Feeds the scheduler with what the controller is told and says, and lets faults happen in virtual time.

    A drawn fault happens to one of the workers whose processes run, whether the controller knows of it or not.
    """

    def __init__(self, faults: tuple[Fault, ...], fleet: InjectedFleet) -> None:
        self._fleet = fleet
        self._chaos = schedule.begin(faults)
        self._at_event = self._chaos.at_event()
        self._watches: list[RoundWatch] = []

    @property
    def unfired(self) -> tuple[Fault, ...]:
        """Written faults that have not happened."""
        return tuple(fault for fault in self._chaos.pending.values() if not fault.drawn)

    def see(self, event: Event, commands: tuple[Command, ...]) -> None:
        """The controller was told `event`, and gave `commands`."""
        if isinstance(event, WorkerUp | Died | UserError):
            self._advance(event)
        for command in commands:
            if isinstance(command, Form):
                self._advance(command)

    def happened(self, count: int) -> None:
        """Event number `count` of the simulation is over."""
        for number in self._at_event.get(count, ()):
            self._reach(number)

    def committed(self, worker: Process, view: int, round: int) -> None:
        """A worker has committed a round: in its own call, so what follows from it comes as an event."""
        if not self._chaos.began:
            self._advance(Progress(worker.name, view, round, 0))
        for watch in [w for w in self._watches if w.worker in (ANYONE, worker.name)]:
            if watch.view == view and watch.round <= round and watch in self._watches:
                self._watches = [other for other in self._watches if other.number != watch.number]
                self._reach_later(worker, watch)

    def _reach_later(self, worker: Process, watch: RoundWatch) -> None:
        """A process that watched for itself and dies or stands still meanwhile does not tell."""
        if watch.worker == ANYONE:
            self._fleet.at(0.0, partial(self._reach, watch.number))
        else:
            self._fleet.after(0.0, worker, partial(self._reach, watch.number))

    def restarted(self) -> None:
        """Another driver goes on."""
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
        """The alarms of a driver die with it; failures that are drawn from rates don't wait for a driver."""
        generation, drawn = self._fleet.generation, self._chaos.pending[number].drawn
        return lambda: self._reach(number) if drawn or generation == self._fleet.generation else None

    def _strike(self, fault: Fault, victims: tuple[Victim, ...]) -> None:
        if self._fleet.finish is not None:
            return
        self._fleet.fire(fault, ", ".join(victim.worker for victim in victims))
        workers = [self._fleet.workers.get(victim.worker) for victim in victims]
        suffer(self._fleet, fault, [worker for worker in workers if worker is not None and worker.alive])
