"""The interfaces between simulated workers, the fleet around them, and its observer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from raysgd_local.control.controller.checkpoints import CheckpointRecord
from raysgd_local.control.controller.events import Command, Event, RecordEvent, RecordRounds
from raysgd_local.control.controller.state import Controller
from raysgd_local.control.member.events import Event as MemberEvent
from raysgd_local.control.messages import Beat, Order
from raysgd_local.faults.language import Fault
from raysgd_local.simulation.engine.connection import Connection
from raysgd_local.simulation.engine.network import SimulatedNetwork


class Process(Protocol):
    """A worker's process, for the fleet. The fleet changes the fields."""

    name: str
    node: str
    alive: bool
    frozen: bool  # stopped by a signal: all its actions are deferred
    slow: float  # factor on the duration of its steps
    spoiled: bool  # its next gradient is not finite
    unwritten: bool  # its next checkpoint shard can't be written
    hung: bool  # its loop stands still; its process lives
    deferred: list[Callable[[], None]]  # actions to run when it is not frozen any more
    connection: Connection

    def start(self) -> None: ...

    def post(self, event: MemberEvent) -> None:
        """Give the member an event. A cut breaks the collective in flight at once."""
        ...

    def give(self, order: Order) -> None:
        """Give the member an order."""
        ...

    def raise_error(self, message: str) -> None:
        """Raise an exception in user code."""
        ...

    def wake(self) -> None:
        """End a hang: let the loop go on."""
        ...

    def die(self) -> None:
        """End the process and its connections."""
        ...


class World(Protocol):
    """Time, the network, and the connection to the controller, for workers."""

    network: SimulatedNetwork
    now: float  # virtual time in seconds
    damaged: set[str]  # checkpoints that can't be loaded

    def after(self, delay_s: float, worker: Process, action: Callable[[], None]) -> None:
        """Run `action` after `delay_s` seconds; later if the worker is frozen then, never if it is dead."""
        ...

    def tell(self, worker: str, event: Event) -> None:
        """Send an event to the controller, after the same worker's earlier ones."""
        ...

    def beat(self, beat: Beat) -> None:
        """Send a heartbeat. It may arrive late or never."""
        ...

    def step_s(self, worker: Process) -> float:
        """Draw the duration of the worker's next optimizer step, in seconds."""
        ...

    def io_s(self) -> float:
        """Draw the duration of writing a file, in seconds."""
        ...

    def ended(self, worker: Process, why: str) -> None:
        """Note that the worker's process has ended by itself."""
        ...

    def committed(self, worker: Process, view: int, round: int) -> None:
        """Note that `worker` has committed `round` in `view`: a fault may be due then."""
        ...


class FleetObserver:
    """Follows a fleet's controller, event by event. Every method does nothing; override those you need.

    To follow a run, real or simulated, use `run_files.observer.RunObserver`.
    """

    def heard(self, event: Event, now: float) -> None:
        """Called before the controller takes an event."""

    def turned(self, controller: Controller) -> None:
        """Called with the controller's state after each event."""

    def decided(self, event: Event, commands: tuple[Command, ...], now: float) -> None:
        """Called with the controller's commands after each event."""

    def ordered(self, controller: Controller, order: Order, workers: dict[str, Any]) -> None:
        """Called when the controller gives an order."""

    def recorded(self, command: RecordRounds) -> None:
        """Called when rounds and evaluations are resolved."""

    def event(self, command: RecordEvent, now: float) -> None:
        """Called with each line for `events.jsonl`."""

    def rewound(self, round: int, evaluations: int, incarnation: int) -> None:
        """Called when the run goes back to a checkpoint: later rounds and evaluations are undone."""

    def checkpoint(self, snapshot: CheckpointRecord, manifest: dict[str, Any]) -> None:
        """Called when a checkpoint is complete, and its manifest is written."""

    def deleted(self, checkpoint: str) -> None:
        """Called when a checkpoint is deleted."""

    def fired(self, fault: Fault, worker: str, now: float) -> None:
        """Called when a fault happens, with the workers that it hits, or an empty name."""

    def restarted(self, begun: Controller, now: float) -> None:
        """Called when a new driver starts, from a checkpoint if there is one."""
