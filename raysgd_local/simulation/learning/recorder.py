"""Record a simulated fleet's run as the driver records a real one, with virtual times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.controller.checkpoints import CheckpointRecord, Saves
from raysgd_local.control.controller.events import Command, Event, Finish, RecordEvent, RecordRounds
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.controller.state import Controller
from raysgd_local.control.run_events import EventName
from raysgd_local.faults.language import Fault
from raysgd_local.run_files.journal import JournalWriter
from raysgd_local.run_files.manifest import read_manifest
from raysgd_local.run_files.observer import RunObserver, RunStart
from raysgd_local.run_files.recording import Recording
from raysgd_local.run_files.result import Names
from raysgd_local.run_files.storage import Storage
from raysgd_local.simulation.engine.world import FleetObserver


class Recorder(FleetObserver):
    """Writes the run directory of a simulated run, and calls its observers.

    `now` is the virtual time of the newest event.
    """

    def __init__(self, storage: Storage, observers: Sequence[RunObserver]) -> None:
        self.now = 0.0
        self._checkpoints, self._lives = storage.under("checkpoints"), 0
        self._recording = Recording(storage, lambda: self.now, observers)
        self._journal = JournalWriter(self._recording.files.journal)

    def begin(self, start: RunStart) -> None:
        self._recording.start(start)

    def driver_begins(self, settings: Settings, saves: Saves | None = None) -> None:
        """Begin the journal of a driver's life, from the newest of the run's checkpoints if there are any."""
        self._lives += 1
        saves = saves or Saves()
        manifests = [read_manifest(self._checkpoints.under(record.name)).plain for record in saves.published]
        newest = manifests[-1] if manifests else None
        self._journal.begin(settings, newest, self._lives, manifests[:-1], saves.count)

    def heard(self, event: Event, now: float) -> None:  # noqa: ARG002
        self.now = now

    def decided(self, event: Event, commands: tuple[Command, ...], now: float) -> None:
        self._journal.heard(event, now, commands)
        self._journal.flush()

    def recorded(self, command: RecordRounds) -> None:
        self._recording.record(command)

    def event(self, command: RecordEvent, now: float) -> None:
        self.now = now
        self._recording.record(command)

    def fired(self, fault: Fault, worker: str, now: float) -> None:
        self.now = now
        self._recording.event(EventName.CHAOS_FIRED, fault=str(fault), **({"worker": worker} if worker else {}))

    def restarted(self, begun: Controller, now: float) -> None:
        self.now = now
        resume = begun.resume
        self._recording.restarted(resume, begun.incarnation)
        self._recording.event(EventName.DRIVER_RESTARTED, checkpoint=resume.name if resume is not None else None)
        self.driver_begins(begun.settings, begun.saves)

    def unfired(self, faults: Iterable[Fault]) -> None:
        """Record the faults that did not happen: the run ended first, or had no such target."""
        for fault in faults:
            self._recording.event(EventName.CHAOS_UNFIRED, fault=str(fault))

    def note(self, event: str, **fields: Any) -> None:
        self._recording.event(event, **fields)

    def rewound(self, round: int, evaluations: int, incarnation: int) -> None:
        self._recording.rewind(round, evaluations, incarnation)

    def checkpoint(self, snapshot: CheckpointRecord, manifest: dict[str, Any]) -> None:
        self._recording.publish(snapshot.name, manifest)

    def deleted(self, checkpoint: str) -> None:
        self._recording.delete(checkpoint)

    def end(self, finish: Finish, books: Books | None, names: Names) -> tuple[Finish, dict[str, Any]]:
        """Write the result. Return the run's end and the content of `result.json`."""
        return self._recording.end(finish, books, names, sleep=lambda _: None)
