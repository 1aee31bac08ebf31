"""What simulated workers and the fleet around them need of each other."""

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
    """A worker's process, as the fleet moves it. All but the methods is the fleet's to change."""

    name: str
    node: str
    alive: bool
    frozen: bool
    slow: float
    spoiled: bool
    unwritten: bool
    hung: bool
    deferred: list[Callable[[], None]]
    connection: Connection

    def start(self) -> None: ...

    def post(self, event: MemberEvent) -> None:
        """A word for the member; a cut breaks what is running at once."""
        ...

    def give(self, order: Order) -> None: ...

    def raise_error(self, message: str) -> None:
        """User code raises."""
        ...

    def wake(self) -> None:
        """Its loop hangs no more."""
        ...

    def die(self) -> None:
        """The process is gone, and its connections with it."""
        ...


class World(Protocol):
    """Time, the network, and the way to the controller. `damaged` are checkpoints that can't be loaded."""

    network: SimulatedNetwork
    now: float
    damaged: set[str]

    def after(self, delay_s: float, worker: Process, action: Callable[[], None]) -> None:
        """Do it in `delay_s` seconds, or later if the worker stands still then; never if it is dead."""
        ...

    def tell(self, worker: str, event: Event) -> None:
        """A word to the controller, after the sender's words before it."""
        ...

    def beat(self, beat: Beat) -> None:
        """A sign of life to the controller's shell; it may come late or never."""
        ...

    def step_s(self, worker: Process) -> float:
        """How long the worker's next optimizer step takes."""
        ...

    def io_s(self) -> float:
        """How long it takes to write a file."""
        ...

    def ended(self, worker: Process, why: str) -> None: ...

    def committed(self, worker: Process, view: int, round: int) -> None:
        """`worker` has committed `round` in `view`: faults may wait for it."""
        ...


class Observer:
    """Follows a simulated controller, event by event. Does nothing by itself.

    `run_files.observer.RunObserver` is for those who follow a run, real or simulated.
    """

    def heard(self, event: Event, now: float) -> None:
        """The controller is given an event."""

    def turned(self, controller: Controller) -> None:
        """It has decided."""

    def decided(self, event: Event, commands: tuple[Command, ...], now: float) -> None:
        """What came of an event."""

    def ordered(self, controller: Controller, order: Order, workers: dict[str, Any]) -> None:
        """It gives an order."""

    def recorded(self, command: RecordRounds) -> None:
        """Rounds and evaluations are resolved."""

    def event(self, command: RecordEvent, now: float) -> None:
        """A line for `events.jsonl`."""

    def rewound(self, round: int, evaluations: int, incarnation: int) -> None:
        """All later rounds and evaluations are undone."""

    def checkpoint(self, snapshot: CheckpointRecord, manifest: dict[str, Any]) -> None:
        """A checkpoint is whole; its manifest is written."""

    def deleted(self, checkpoint: str) -> None:
        """A checkpoint goes."""

    def fired(self, fault: Fault, worker: str, now: float) -> None:
        """A fault happens."""

    def restarted(self, resume: CheckpointRecord | None, incarnation: int, now: float) -> None:
        """The driver died and starts again, from a checkpoint if there is one."""
