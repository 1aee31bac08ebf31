"""A simulated run's directory: the files that a real run writes, with virtual times."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from raysgd_local.control.controller_events import Event, RecordEvent, RecordRounds
from raysgd_local.control.saves import Snapshot
from raysgd_local.faults import Fault
from raysgd_local.files.run_files import RunFiles
from raysgd_local.files.storage import MANIFEST, Storage
from raysgd_local.records import RoundRow, to_plain
from raysgd_local.simulation.world import Observer

Progress = Callable[[tuple[RoundRow, ...]], None]


class Recorder(Observer):
    """Writes what the controller hears and says, as the driver does. `progress` is told of rounds."""

    def __init__(self, storage: Storage, progress: Progress) -> None:
        self._checkpoints, self._progress = storage.under("checkpoints"), progress
        self.now = 0.0
        self.files = RunFiles(storage, lambda: self.now)

    def heard(self, event: Event, now: float) -> None:
        self.now = now
        self.files.journal({"now": now, "kind": type(event).__name__, "event": to_plain(event)})

    def recorded(self, command: RecordRounds) -> None:
        self.files.record(command)
        if command.rounds:
            self._progress(command.rounds)

    def event(self, command: RecordEvent, now: float) -> None:
        self.now = now
        self.files.event(command.event, **command.fields)

    def fired(self, fault: Fault, worker: str, now: float) -> None:
        self.now = now
        self.files.event("chaos_fired", fault=str(fault), **({"worker": worker} if worker else {}))

    def restarted(self, resume: Snapshot | None, now: float) -> None:
        """As `runtime.driver` tells it; without a checkpoint nothing that was done is left."""
        self.now = now
        if resume is None:
            self.files.rewind(0, 0)
        self.files.event("driver_restarted", checkpoint=resume.name if resume else None)

    def unfired(self, faults: Iterable[Fault]) -> None:
        """What did not happen, because the run ended first or there was nobody whom it could happen to."""
        for fault in faults:
            self.files.event("chaos_unfired", fault=str(fault))

    def log(self, fields: dict[str, Any]) -> None:
        self.files.event("log", **fields)

    def rewound(self, round: int, evaluations: int) -> None:
        self.files.rewind(round, evaluations)

    def checkpoint(self, snapshot: Snapshot, manifest: dict[str, Any]) -> None:
        self._checkpoints.write(f"{snapshot.name}/{MANIFEST}", json.dumps(manifest).encode())

    def deleted(self, checkpoint: str) -> None:
        self._checkpoints.delete(checkpoint)
