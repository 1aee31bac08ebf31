"""A simulated run's directory: the files that a real run writes, with virtual times."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.controller.checkpoints import CheckpointRecord
from raysgd_local.control.controller.events import Command, Event, Finish, Heartbeat, RecordEvent, RecordRounds
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.faults.language import Fault
from raysgd_local.run_files import journal
from raysgd_local.run_files.result import Names, result
from raysgd_local.run_files.storage import MANIFEST, Storage
from raysgd_local.run_files.writer import RESULT, RunFiles
from raysgd_local.simulation.engine.world import Observer

Progress = Callable[[tuple[RoundRow, ...]], None]


class Recorder(Observer):
    """Writes what the controller hears and says, as the driver does. `progress` is told of rounds."""

    def __init__(self, storage: Storage, progress: Progress) -> None:
        self._checkpoints, self._progress = storage.under("checkpoints"), progress
        self._lives = 0
        self.now = 0.0
        self.files = RunFiles(storage, lambda: self.now)

    def begin(self, settings: Settings, resume: CheckpointRecord | None = None) -> None:
        """A driver's life begins, from a checkpoint if there is one; the journal says with what."""
        self._settings, self._lives = settings, self._lives + 1
        name = resume and f"{resume.name}/{MANIFEST}"
        manifest = json.loads(self._checkpoints.read(name)) if name else None
        self.files.journal(journal.begun(settings, manifest, self._lives))

    def heard(self, event: Event, now: float) -> None:  # noqa: ARG002
        self.now = now

    def decided(self, event: Event, commands: tuple[Command, ...], now: float) -> None:
        if commands or not isinstance(event, Heartbeat):
            self.files.journal(journal.entry(event, now, commands))

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

    def restarted(self, resume: CheckpointRecord | None, now: float) -> None:
        """As `runtime.driver` tells it; without a checkpoint nothing that was done is left."""
        self.now = now
        if resume is None:
            self.files.rewind(0, 0)
        self.files.event("driver_restarted", checkpoint=resume.name if resume else None)
        self.begin(self._settings, resume)

    def unfired(self, faults: Iterable[Fault]) -> None:
        """What did not happen, because the run ended first or there was nobody whom it could happen to."""
        for fault in faults:
            self.files.event("chaos_unfired", fault=str(fault))

    def log(self, fields: dict[str, Any]) -> None:
        self.files.event("log", **fields)

    def rewound(self, round: int, evaluations: int) -> None:
        self.files.rewind(round, evaluations)

    def checkpoint(self, snapshot: CheckpointRecord, manifest: dict[str, Any]) -> None:
        self._checkpoints.write(f"{snapshot.name}/{MANIFEST}", json.dumps(manifest).encode())

    def deleted(self, checkpoint: str) -> None:
        self._checkpoints.delete(checkpoint)

    def end(self, finish: Finish, books: Books | None, names: Names) -> dict[str, Any]:
        """Write what is written at the end; returns `result.json`'s content."""
        content = result(self.files, books, finish, names)
        self.files.event("ended", status=finish.status, reason=finish.reason)
        self.files.write(RESULT, json.dumps(content, indent=1))
        self.files.copy_out_now()
        return content
