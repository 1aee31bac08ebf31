"""The driver's inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from raysgd_local.control.controller import events as c
from raysgd_local.control.controller.checkpoints import CheckpointRecord, snapshot_of
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.controller.state import Controller, begin
from raysgd_local.control.messages import Order
from raysgd_local.errors import InputError
from raysgd_local.faults.language import Fault
from raysgd_local.faults.schedule import RoundWatch
from raysgd_local.run_files.lease_protocol import Claim
from raysgd_local.run_files.observers import Delivery, Heard
from raysgd_local.run_files.result import Names
from raysgd_local.run_files.storage import Storage
from raysgd_local.runtime.worker_group import Resources
from raysgd_local.runtime.worker_spec import WorkerSpec
from raysgd_local.training.ports import TrainingStatus


@dataclass(frozen=True)
class Restart:
    """The death of the previous driver."""

    count: int  # deaths since the command began
    reason: str


@dataclass(frozen=True)
class Plan:
    """The inputs of a driver."""

    settings: Settings  # of the controller
    spec: WorkerSpec  # inputs of every worker
    resources: Resources  # of one worker
    storage: Storage  # the run directory
    names: Names  # of method and task
    resume: dict[str, Any] | None = None  # manifest of the checkpoint to go on from
    older: tuple[dict[str, Any], ...] = ()  # manifests of the run's other checkpoints, oldest first
    damaged: tuple[str, ...] = ()  # checkpoints that can't be loaded
    again: bool = False  # the run's directory was there before this command
    config: str = ""  # content of config.yaml; a resumed run writes it when it goes on
    restart: Restart | None = None  # the previous driver's death; None for the first driver
    chaos: tuple[Fault, ...] = ()  # faults to make happen
    heard: Heard | None = None  # the newest that observers were told; None without observers
    lease: Claim | None = None  # the command's right to write the run's directory, which the driver shares

    @property
    def lives(self) -> int:
        """The number of drivers that the command started, this one included."""
        return 1 + (self.restart.count if self.restart is not None else 0)

    @property
    def taken(self) -> int:
        """The highest number of a damaged checkpoint: it is kept, and its name not given again."""
        return max(map(int, self.damaged), default=0)

    def begin(self) -> Controller:
        """Return the controller at the beginning of the driver's life."""
        older = [self._record(manifest) for manifest in self.older]
        return begin(self.settings, self.resumed(), self.lives, older, self.taken)

    def resumed(self) -> CheckpointRecord | None:
        """Return the record of the checkpoint to go on from."""
        return None if self.resume is None else self._record(self.resume)

    def _record(self, manifest: dict[str, Any]) -> CheckpointRecord:
        return snapshot_of(manifest, self.settings.program.schedule)


@dataclass(frozen=True)
class RunOutcome:
    """The end of a run."""

    finish: c.Finish
    result: dict[str, Any]  # the content of result.json
    refused: InputError | None = None  # an input error that only a worker could find
    delivery: Delivery = field(default_factory=Delivery)  # notices for observers that were not fetched yet
    output: tuple[str, ...] = ()  # the workers' lines that were not shown yet


@dataclass(frozen=True)
class Glance:
    """The run's present state, for live progress, and new notices for observers."""

    phase: str  # of the controller
    workers: int  # live members
    status: TrainingStatus | None  # None before a member has state
    delivery: Delivery = field(default_factory=Delivery)
    waits: str = ""  # what workers that Ray can't place wait for
    output: tuple[str, ...] = ()  # the workers' new lines


class Group(Protocol):
    """The workers, for the driver."""

    def request(self, worker: str) -> None: ...

    def kill(self, worker: str) -> None: ...

    def order(self, to: tuple[str, ...], order: Order) -> None: ...

    def yield_(self, to: tuple[str, ...], view: int, segment: int) -> None: ...

    def cut(self, to: tuple[str, ...], view: int, why: str) -> None: ...

    def suffer(self, worker: str, fault: Fault) -> None: ...

    def watch(self, worker: str, watches: tuple[RoundWatch, ...]) -> None: ...

    def close(self) -> None: ...


MakeGroup = Callable[[Plan, Callable[[c.Event], None]], Group]
