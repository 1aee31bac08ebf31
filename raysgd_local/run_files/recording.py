"""Record a run, real or simulated: write the controller's commands into files, and pass them on to observers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from raysgd_local.control.controller import events as c
from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.controller.checkpoints import CheckpointRecord
from raysgd_local.control.run_events import EventName
from raysgd_local.run_files import tables
from raysgd_local.run_files.observer import RunEnd, RunEvent, RunObserver, RunStart
from raysgd_local.run_files.observers import Heard, Notice, Observers, Outbox
from raysgd_local.run_files.result import Names, result, strict_json
from raysgd_local.run_files.storage import MANIFEST, Storage
from raysgd_local.run_files.writer import RESULT, RunFiles

Recorded = c.RecordRounds | c.RecordEvent
"""Commands that only record something."""


class Recording:
    """Tells the run's files and the observers of everything, in the same order.

    `time` gives seconds for events, `observers` are users', called in line; `outbox` keeps notices for elsewhere.
    """

    def __init__(
        self,
        storage: Storage,
        time: Callable[[], float],
        observers: Sequence[RunObserver] = (),
        outbox: Outbox | None = None,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._time, self._outbox, self._may_write = time, outbox, may_write
        self._checkpoints = storage.under("checkpoints")
        self.files = RunFiles(storage, time, self.event, may_write)
        self._tell = Observers((self.files,), observers, self._dropped, outbox).tell
        self._rewound = (-1, -1, -1)

    def start(self, start: RunStart) -> None:
        self._tell("run_started", start)

    def record(self, command: Recorded) -> None:
        match command:
            case c.RecordRounds(rounds, evaluations):
                if rounds:
                    self._tell("rounds_resolved", rounds)
                if evaluations:
                    self._tell("evaluated", evaluations)
            case c.RecordEvent(event, fields):
                self.event(event, **fields)

    def event(self, event: str, /, **fields: Any) -> None:
        self._tell("event_recorded", RunEvent(round(self._time(), 4), event, fields))

    def _dropped(self, observer: RunObserver, error: Exception) -> None:
        self.event(
            EventName.OBSERVER_FAILED, observer=type(observer).__name__, reason=f"{type(error).__name__}: {error}"
        )

    def rewind(self, round: int, evaluations: int, incarnation: int) -> None:
        """Remove all rounds and evaluations after a checkpoint, unless `restarted` did so already."""
        if self._rewound != (round, evaluations, incarnation):
            self._rewound = (round, evaluations, incarnation)
            self._tell("rewound", round, evaluations, incarnation)

    def restarted(self, resume: CheckpointRecord | None, incarnation: int, heard: Heard | None = None) -> None:
        """A new driver goes on from `resume`; without one, nothing that was done is left.

        Observers elsewhere, who `heard` so much of the driver before, get what they missed by its death.
        """
        state = resume.replicated if resume is not None else None
        self.rewind(state.round if state else 0, state.evaluations if state else 0, incarnation)
        if self._outbox is not None and heard is not None:
            for notice in _missed(self.files, heard):
                self._outbox.put(notice)

    def publish(self, checkpoint: str, manifest: dict[str, Any]) -> None:
        """Write the manifest, which makes the checkpoint complete. Raises `OSError` if the run is not ours any more."""
        if not self._may_write():
            raise OSError("another command has taken the run over")
        self._checkpoints.write(f"{checkpoint}/{MANIFEST}", json.dumps(manifest).encode())
        self._tell("checkpoint_published", checkpoint, manifest["replicated"]["round"])

    def delete(self, checkpoint: str) -> None:
        self._checkpoints.delete(checkpoint)
        self.deleted(checkpoint)

    def deleted(self, checkpoint: str) -> None:
        self._tell("checkpoint_deleted", checkpoint)

    def end(
        self, finish: c.Finish, books: Books | None, names: Names, sleep: Callable[[float], None]
    ) -> tuple[c.Finish, dict[str, Any]]:
        """Write `result.json`. Return the run's end (lost if the results can't be written) and the file's content."""
        content = result(self.files, books, finish, names)
        self.event(EventName.ENDED, status=finish.status, reason=finish.reason)
        trouble = self.files.finish(RESULT, strict_json(content), sleep)
        if trouble and finish.status == "finished":
            finish = c.Finish("lost", f"training is over, but its results can't be written: {trouble}")
        self._tell("run_ended", RunEnd(finish.status, finish.reason, content))
        return finish, content


def _missed(files: RunFiles, heard: Heard) -> list[Notice]:
    """Return notices of the records in `files` that observers did not receive."""
    rounds = tuple(tables.round_row(row) for row in files.rounds if row["round"] > heard.round)
    evaluations = tuple(tables.eval_row(row) for row in files.evaluations[heard.evaluations :])
    events = [RunEvent(line["time_s"], line["event"], _fields(line)) for line in _since(files, heard)]
    return [
        *([Notice("rounds_resolved", (rounds,))] if rounds else []),
        *([Notice("evaluated", (evaluations,))] if evaluations else []),
        *(Notice("event_recorded", (event,)) for event in events),
    ]


def _since(files: RunFiles, heard: Heard) -> list[dict[str, Any]]:
    """Return the events after the last one that observers received; none if they received none."""
    newest = heard.event and json.dumps(heard.event.line, default=repr)
    after: list[dict[str, Any]] = []
    for line in reversed(files.events):
        if json.dumps(line) == newest:
            return after[::-1]
        after.append(line)
    return []


def _fields(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("time_s", "event")}
