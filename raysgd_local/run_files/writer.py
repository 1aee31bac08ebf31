"""Write a run directory: tables, events, journal, result."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.control.run_events import EventName
from raysgd_local.records import EvalRow
from raysgd_local.run_files import tables
from raysgd_local.run_files.background_copy import Copies
from raysgd_local.run_files.observer import RunEvent, RunObserver
from raysgd_local.run_files.outage import Outage
from raysgd_local.run_files.storage import Storage

ROUNDS, EVALS, EVENTS, JOURNAL = "rounds.csv", "evals.csv", "events.jsonl", "journal.jsonl"
RESULT = "result.json"
LOGS = "logs"
OWN_FILES = (ROUNDS, EVALS, EVENTS, JOURNAL, RESULT)


class RunFiles(RunObserver):
    """Appends to a run's files. On storage that can't append they grow in a local folder and are copied there.

    `time` gives Unix seconds for `events.jsonl`. Opening an existing run directory goes on in its files. `report`
    records an event about storage; without it the event goes into the file only. `may_write` tells whether this process
    still holds the run; while it does not, nothing is written.
    """

    def __init__(
        self,
        storage: Storage,
        time: Callable[[], float],
        report: Callable[..., None] | None = None,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._storage, self._time, self._report = storage, time, report or self.event
        self._may_write = may_write
        self._staging = None if storage.local else tempfile.TemporaryDirectory(prefix="raysgd-local-")
        self._folder = storage.local or Path(self._staging.name if self._staging else "")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._dirty: set[str] = set()
        self._behind: set[str] = set()
        self._journal: list[str] = []  # lines that could not be written yet
        self._outage, self._away = Outage(), Outage()
        self._copies = Copies(self._folder, storage)
        self._fetch()
        for name in (ROUNDS, EVALS, EVENTS, JOURNAL):
            self._drop_half_line(name)
        written = tables.parsed(self._read(ROUNDS))
        self.rounds = [tables.ABSENT | row for row in written]
        self._round_columns = tables.round_columns(written)
        self._outdated = bool(written) and list(written[0]) != self._round_columns
        self.evaluations = tables.parsed(self._read(EVALS))
        self.events = [json.loads(line) for line in self._read(EVENTS).splitlines()]

    def _fetch(self) -> None:
        """Copy an earlier driver's files from remote storage."""
        if self._staging is None:
            return
        for name in (ROUNDS, EVALS, EVENTS, JOURNAL):
            if self._storage.exists(name):
                (self._folder / name).write_bytes(self._storage.read(name))

    def _read(self, name: str) -> str:
        path = self._folder / name
        if not path.exists():
            return ""
        with path.open(encoding="utf-8", newline="") as stream:  # names of metrics may hold line breaks
            return stream.read()

    def _drop_half_line(self, name: str) -> None:
        """Remove an incomplete last line: the process that wrote it may have died."""
        text = self._read(name)
        if text and not text.endswith("\n"):
            self._write(self._folder / name, text[: text.rfind("\n") + 1])

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8", newline="")

    def _append(self, name: str, text: str) -> None:
        """Append; while the storage fails, leave it to `retry`."""
        if name not in self._behind:
            try:
                self._check_lease()
                with (self._folder / name).open("a", encoding="utf-8", newline="") as stream:
                    stream.write(text)
            except OSError as error:
                self._fall_behind(name, error)
        if name in self._behind and name == JOURNAL:
            self._journal.append(text)
        self._dirty.add(name)

    def _check_lease(self) -> None:
        """Raise `OSError` unless this process still holds the run: without it the storage is as good as gone."""
        if not self._may_write():
            raise OSError("another command has taken the run over")

    def _rewrite(self, name: str) -> None:
        try:
            self._replace(name)
        except OSError as error:
            self._fall_behind(name, error)
        self._dirty.add(name)

    def _replace(self, name: str) -> None:
        """Write a whole file from memory; of the journal, which is not in memory, the missing end."""
        self._check_lease()
        self._folder.mkdir(parents=True, exist_ok=True)
        before = self._read(name) if name == JOURNAL else ""
        draft = self._folder / f"{name}.tmp"
        self._write(draft, before[: before.rfind("\n") + 1] + self._content(name))
        draft.replace(self._folder / name)
        if name == JOURNAL:
            self._journal.clear()

    def _content(self, name: str) -> str:
        match name:
            case "rounds.csv":
                return tables.text(self._round_columns, self.rounds, header=True)
            case "evals.csv":
                return tables.text(tables.eval_columns(self.evaluations), self.evaluations, header=True)
            case "events.jsonl":
                return "".join(map(_event_line, self.events))
            case _:
                return "".join(self._journal)

    def _fall_behind(self, name: str, error: OSError) -> None:
        """Note that the disk is full or gone. Training goes on, and unwritten data is kept until it can be written."""
        first = not self._behind
        self._behind.add(name)
        if first:
            self._report(EventName.STORAGE_FAILED, reason=str(error))

    def retry(self, now: float) -> str:
        """Write the missing data, if an attempt is due. Return the error; empty if there is none."""
        if not self._behind or not self._outage.due(now):
            return ""
        try:
            for name in sorted(self._behind):
                self._replace(name)
                self._behind.discard(name)
        except OSError as error:
            self._outage.goes_on(now)
            return str(error)
        self._report(EventName.STORAGE_RECOVERED, after_s=round(self._outage.ends(now), 1))
        return ""

    def finish(self, name: str, text: str, sleep: Callable[[float], None]) -> str:
        """Write the last file and all missing data, in a few attempts. Return the error; empty if there is none."""
        trouble = ""
        for wait_s in (0.0, 1.0, 2.0, 4.0):
            sleep(wait_s)
            try:
                self._storage.write(name, text.encode())
                for behind in sorted(self._behind):
                    self._replace(behind)
                self._behind.clear()
                self.copy_out_now()
            except OSError as error:
                trouble = str(error)
            else:
                return ""
        return trouble

    def rounds_resolved(self, rounds: tuple[RoundRow, ...]) -> None:
        rows = [asdict(row) for row in rounds]
        header = not self.rounds and not (self._folder / ROUNDS).exists()
        self.rounds += rows
        if self._outdated:  # another version's columns: write the table whole once, then append
            self._outdated = False
            self._rewrite(ROUNDS)
        else:
            self._append(ROUNDS, tables.text(self._round_columns, rows, header=header))

    def evaluated(self, evaluations: tuple[EvalRow, ...]) -> None:
        for row in evaluations:
            self._record_evaluation(row)

    def _record_evaluation(self, row: EvalRow) -> None:
        known = tables.eval_columns(self.evaluations)
        plain = tables.eval_plain(row)
        self.evaluations.append(plain)
        columns = tables.eval_columns(self.evaluations)
        if columns == known and (self._folder / EVALS).exists():
            self._append(EVALS, tables.text(columns, [plain], header=False))
        else:
            self._rewrite(EVALS)

    def rewound(self, round: int, evaluations: int, incarnation: int) -> None:  # noqa: ARG002
        self.rounds = [row for row in self.rounds if int(row["round"]) <= round]
        self.evaluations = self.evaluations[:evaluations]
        self._rewrite(ROUNDS)
        self._rewrite(EVALS)

    def event(self, event: str, /, **values: Any) -> None:
        """Write an event of now."""
        self.event_recorded(RunEvent(round(self._time(), 4), event, values))

    def event_recorded(self, event: RunEvent) -> None:
        text = _event_line(event.line)
        self.events.append(json.loads(text))
        self._append(EVENTS, text)

    def journal(self, line: dict[str, Any]) -> None:
        """Write one of the controller's events into the journal, so that its decisions can be replayed."""
        self._append(JOURNAL, json.dumps(line) + "\n")

    def write(self, name: str, text: str) -> None:
        """Write a whole file, such as `config.yaml` or `result.json`."""
        self._storage.write(name, text.encode())

    def copy_out(self, now: float) -> None:
        """Begin to copy changed files to remote storage, in the background, unless earlier copies are still running.

        Failed copies are tried again, at growing intervals.
        """
        if self._staging is None or self._copies.busy or not self._may_write():
            return
        self._take_in_copies(now)
        if self._dirty and self._away.due(now):
            self._copies.start(self._dirty)
            self._dirty.clear()

    def _take_in_copies(self, now: float) -> None:
        if (ended := self._copies.ended()) is None:
            return
        again, trouble = ended
        self._dirty |= again
        if trouble:
            if not self._away.lasts:
                self._report(EventName.STORAGE_FAILED, reason=trouble)
            self._away.goes_on(now)
        elif self._away.lasts:
            self._report(EventName.STORAGE_RECOVERED, after_s=round(self._away.ends(now), 1))

    def copy_out_now(self) -> None:
        """Copy changed files to remote storage in this thread. Raises `OSError` if the storage fails."""
        if self._staging is None:
            return
        again, _ = self._copies.ended() or (frozenset(), "")
        self._dirty |= again
        self._copies.copy(self._dirty)
        self._dirty.clear()


def _event_line(line: dict[str, Any]) -> str:
    """A line of `events.jsonl`. A value that JSON can't hold is told as text: the driver can't fail for it."""
    return json.dumps(line, default=repr, skipkeys=True) + "\n"
