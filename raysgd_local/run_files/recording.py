"""Record a run, real or simulated: write the controller's commands into files, and pass them on to observers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from raysgd_local.control.controller import events as c
from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.controller.checkpoints import CheckpointRecord
from raysgd_local.control.run_events import EventName
from raysgd_local.run_files import tables
from raysgd_local.run_files.checkpoint_survey import delete_after
from raysgd_local.run_files.manifest import MANIFEST, encoded
from raysgd_local.run_files.observer import RunEnd, RunEvent, RunObserver, RunStart
from raysgd_local.run_files.observers import Heard, Notice, Observers, Outbox
from raysgd_local.run_files.result import Names, result, strict_json
from raysgd_local.run_files.storage import Storage
from raysgd_local.run_files.stored_files import lacking
from raysgd_local.run_files.writer import CONFIG, MODEL, RESULT, RunFiles

Recorded = c.RecordRounds | c.RecordEvent
"""Commands that only record something."""


class Recording:
    """Tells the run's files and the observers of everything, in the same order.

    `time` gives seconds for events, `observers` are users', called in line; `outbox` keeps notices for elsewhere.
    `config` is the content of `config.yaml`; empty: it is not this recording's.
    """

    def __init__(
        self,
        storage: Storage,
        time: Callable[[], float],
        observers: Sequence[RunObserver] = (),
        outbox: Outbox | None = None,
        may_write: Callable[[], bool] = lambda: True,
        config: str = "",
    ) -> None:
        self._storage, self._config = storage, config
        self._time, self._outbox, self._may_write = time, outbox, may_write
        self._checkpoints = storage.under("checkpoints")
        self.files = RunFiles(storage, time, self.event, may_write)
        self._tell = Observers((self.files,), observers, self._dropped, outbox).tell
        self._rewound = (-1, -1, -1)
        self._resumed: _Resumed | None = None
        self._config_due = False  # config.yaml is not this command's yet
        self._published = ""  # name of the newest checkpoint published so far

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

    def resumed(self, resume: CheckpointRecord | None, incarnation: int, keep: Sequence[str] = ()) -> None:
        """A new command goes on from `resume`; without one, it begins anew.

        Until `goes_on` everything stays as it was: a resume that fails takes nothing away.
        """
        self._resumed = _Resumed(resume, incarnation, tuple(keep))
        self._tell_missing(resume)

    def _tell_missing(self, resume: CheckpointRecord | None) -> None:
        if resume is not None and (gap := lacking(self.files.rounds, self.files.evaluations, resume.replicated)):
            self.event(EventName.ROWS_MISSING, checkpoint=resume.name, **gap)

    def goes_on(self) -> None:
        """The resumed run goes on: write `config.yaml`, and remove checkpoints and rows after that of the resume."""
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            return
        self._config_due = True
        with contextlib.suppress(OSError):  # at the end it is tried again
            self._write_config()
        state = resumed.checkpoint.replicated if resumed.checkpoint is not None else None
        self.rewind(state.round if state else 0, state.evaluations if state else 0, resumed.incarnation)
        if resumed.checkpoint is not None:
            self.delete_after(resumed.checkpoint.name, resumed.keep)

    def delete_after(self, checkpoint: str, keep: Sequence[str]) -> None:
        """Delete the checkpoints newer than `checkpoint`, finished or not, except `keep`."""
        with contextlib.suppress(OSError):  # what stays has a higher number than any that counts
            for name in delete_after(self._storage, checkpoint, keep):
                self.deleted(name)

    def _write_config(self) -> None:
        if self._config and self._may_write():
            self._storage.write(CONFIG, self._config.encode())
            self._config_due = False

    def rewind(self, round: int, evaluations: int, incarnation: int) -> None:
        """Remove all rounds and evaluations after a checkpoint, unless that is done, or left to `goes_on`."""
        if self._resumed is None and self._rewound != (round, evaluations, incarnation):
            self._rewound = (round, evaluations, incarnation)
            self._tell("rewound", round, evaluations, incarnation)

    def restarted(
        self,
        resume: CheckpointRecord | None,
        incarnation: int,
        heard: Heard | None = None,
        keep: Sequence[str] = (),
    ) -> None:
        """A new driver goes on from `resume`; without one, nothing that was done is left.

        Observers elsewhere, who `heard` so much of the driver before, get what they missed by its death.
        """
        self.resumed(resume, incarnation, keep)
        self.goes_on()
        if self._outbox is not None and heard is not None:
            for notice in _missed(self.files, heard):
                self._outbox.put(notice)

    def publish(self, checkpoint: str, manifest: dict[str, Any]) -> None:
        """Write the manifest, which makes the checkpoint complete. Raises `OSError` if the run is not ours any more."""
        if not self._may_write():
            raise OSError("another command has taken the run over")
        self._checkpoints.write(f"{checkpoint}/{MANIFEST}", encoded(manifest))
        self._published = max(self._published, checkpoint)
        self._tell("checkpoint_published", checkpoint, manifest["replicated"]["round"])

    def delete(self, checkpoint: str) -> None:
        self._checkpoints.delete(checkpoint)
        self.deleted(checkpoint)

    def deleted(self, checkpoint: str) -> None:
        if checkpoint == self._published:
            self._published = ""
        self._tell("checkpoint_deleted", checkpoint)

    def end(
        self, finish: c.Finish, books: Books | None, names: Names, sleep: Callable[[float], None]
    ) -> tuple[c.Finish, dict[str, Any]]:
        """Write `result.json`. Return the run's end (lost if the results can't be written) and the file's content.

        A resumed run that failed before it went on leaves the earlier end's.
        """
        if finish.status == "finished":
            self.goes_on()
        self.files.verify()
        content = result(self.files, books, finish, names) | self._missing(finish)
        self.event(EventName.ENDED, status=finish.status, reason=finish.reason)
        trouble = self.files.finish(self._last_files(content), sleep)
        if trouble and finish.status == "finished":
            finish = c.Finish("lost", f"training is over, but its results can't be written: {trouble}")
        self._tell("run_ended", RunEnd(finish.status, finish.reason, content))
        return finish, content

    def _last_files(self, content: dict[str, Any]) -> dict[str, str]:
        """Return the files to write at the end: none if a resume failed before it went on."""
        if self._resumed is not None:
            return {}
        due = self._config and (self._config_due or self._lacks(CONFIG))
        return {RESULT: strict_json(content)} | ({CONFIG: self._config} if due else {})

    def _missing(self, finish: c.Finish) -> dict[str, Any]:
        """Return, for `result.json`, which files of the last checkpoint the storage lost; nothing if all are there."""
        last = [f"checkpoints/{self._published}/{MANIFEST}"] if self._published else []
        wanted = [*last, MODEL] if finish.status == "finished" and last else last
        lost = [name for name in wanted if self._lacks(name)]
        if lost:
            self.event(EventName.FILES_MISSING, files=lost)
        return {"missing": lost} if lost else {}

    def _lacks(self, name: str) -> bool:
        try:
            return not self._storage.exists(name)
        except OSError:  # not known: the storage can't be reached
            return False


@dataclass(frozen=True)
class _Resumed:
    """A resume that has not shown yet that it goes on."""

    checkpoint: CheckpointRecord | None
    incarnation: int
    keep: tuple[str, ...]  # damaged checkpoints


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
