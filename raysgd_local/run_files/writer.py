"""Write a run directory: tables, events, journal, result."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.control.run_events import EventName
from raysgd_local.records import EvalRow
from raysgd_local.run_files import event_lines, tables
from raysgd_local.run_files.appended_file import AppendedFile, CompressedText, FileChangedError
from raysgd_local.run_files.background_copy import Copies
from raysgd_local.run_files.event_lines import EVENTS
from raysgd_local.run_files.observer import RunEvent, RunObserver
from raysgd_local.run_files.outage import Outage
from raysgd_local.run_files.storage import Storage
from raysgd_local.run_files.tables import EVALS, ROUNDS

JOURNAL, RESULT, CONFIG, MODEL = "journal.jsonl", "result.json", "config.yaml", "model.pt"
LOGS = "logs"
GROWING = (ROUNDS, EVALS, EVENTS, JOURNAL)
OWN_FILES = (*GROWING, RESULT)


F = TypeVar("F", bound=Callable[..., Any])


def _in_turn(method: F) -> F:
    """Let one thread at a time write: events come from the driver's own and from those of workers' calls."""

    @wraps(method)
    def taking_turns(self: RunFiles, *args: Any, **options: Any) -> Any:
        with self._turn:
            return method(self, *args, **options)

    return cast(F, taking_turns)


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
        self._turn = threading.RLock()
        self._dirty: set[str] = set()
        self._behind: set[str] = set()
        self._outage, self._away = Outage(), Outage()
        self._copies = Copies(self._folder, storage)
        self._fetch()
        self._files = {name: AppendedFile(self._folder / name) for name in GROWING}
        self._load({name: file.read() for name, file in self._files.items()})

    def _fetch(self) -> None:
        """Copy an earlier driver's files from remote storage."""
        if self._staging is None:
            return
        for name in GROWING:
            if self._storage.exists(name):
                (self._folder / name).write_bytes(self._storage.read(name))

    def _load(self, written: dict[str, bytes]) -> None:
        """Take in an earlier driver's files. Raises `DamagedFileError` for content that no run writes."""
        rounds = tables.parsed(ROUNDS, written[ROUNDS])
        self.rounds = [tables.ABSENT | row for row in rounds]
        self._round_columns = tables.round_columns(rounds)
        self.evaluations = tables.parsed(EVALS, written[EVALS])
        self.events = event_lines.parsed(written[EVENTS])
        self._journal = CompressedText()
        self._journal.add(written[JOURNAL][: written[JOURNAL].rfind(b"\n") + 1])
        # Of another version, or with a broken end: written whole before anything is appended.
        self._outdated = {name for name, content in written.items() if content and content != self._content(name)}

    def _append(self, name: str, text: str) -> None:
        """Append to the file what is in memory already; while the storage fails, leave it to `retry`."""
        if name in self._outdated:
            self._rewrite(name)
        elif name not in self._behind:
            try:
                self._check_lease()
                self._files[name].append(text.encode())
            except OSError as error:
                self._fall_behind(name, error)
        self._dirty.add(name)

    def _check_lease(self) -> None:
        """Raise `OSError` unless this process still holds the run: without it the storage is as good as gone."""
        if not self._may_write():
            raise OSError("another command has taken the run over")

    def _rewrite(self, name: str) -> None:
        self._outdated.discard(name)
        try:
            self._replace(name)
        except OSError as error:
            self._fall_behind(name, error)
        self._dirty.add(name)

    def _replace(self, name: str) -> None:
        """Write a whole file from memory."""
        self._check_lease()
        self._files[name].replace(self._content(name))

    def _content(self, name: str) -> bytes:
        match name:
            case "rounds.csv":
                return tables.text(self._round_columns, self.rounds, header=True).encode()
            case "evals.csv":
                return tables.text(tables.eval_columns(self.evaluations), self.evaluations, header=True).encode()
            case "events.jsonl":
                return "".join(map(_event_line, self.events)).encode()
            case _:
                return self._journal.content

    def _fall_behind(self, name: str, error: OSError) -> None:
        """Note that the disk is full or gone. Training goes on, and unwritten data is kept until it can be written.

        Where a file is not as it was written, all are written again.
        """
        first = not self._behind
        self._behind.add(name)
        if isinstance(error, FileChangedError):
            self._behind |= self._begun
        if first:
            self._report(EventName.STORAGE_FAILED, reason=str(error))

    @property
    def _begun(self) -> set[str]:
        """The files to which something was written."""
        return {name for name, file in self._files.items() if not file.empty}

    @_in_turn
    def verify(self) -> None:
        """Compare the files with what was written; what differs is to be written again."""
        for name, file in self._files.items():
            if name not in self._behind and not file.intact():
                self._fall_behind(name, FileChangedError(f"{name} is not as it was written"))

    @_in_turn
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

    def finish(self, whole: dict[str, str], sleep: Callable[[float], None]) -> str:
        """Write the last files, `whole`, and all missing data, in a few attempts. Return the error; empty for none.

        Storage that changed just now may change back: the attempts go on, and write again what is lost by that.
        """
        trouble, changing = "", False
        for wait_s in (0.0, 1.0, 2.0, 4.0):
            sleep(wait_s)
            self.verify()
            changing = changing or bool(self._behind)
            try:
                self._write_last(whole)
            except OSError as error:
                trouble = str(error)
                continue
            trouble = ""
            if not changing:
                break
        return trouble

    @_in_turn
    def _write_last(self, whole: dict[str, str]) -> None:
        for name, text in whole.items():
            self._storage.write(name, text.encode())
        for name in sorted(self._behind):
            self._replace(name)
        self._behind.clear()
        self._dirty |= self._begun
        self.copy_out_now()

    @_in_turn
    def rounds_resolved(self, rounds: tuple[RoundRow, ...]) -> None:
        rows = [asdict(row) for row in rounds]
        self.rounds += rows
        self._append(ROUNDS, tables.text(self._round_columns, rows, header=self._files[ROUNDS].empty))

    @_in_turn
    def evaluated(self, evaluations: tuple[EvalRow, ...]) -> None:
        for row in evaluations:
            self._record_evaluation(row)

    def _record_evaluation(self, row: EvalRow) -> None:
        known = tables.eval_columns(self.evaluations)
        plain = tables.eval_plain(row)
        self.evaluations.append(plain)
        columns = tables.eval_columns(self.evaluations)
        if columns == known and not self._files[EVALS].empty:
            self._append(EVALS, tables.text(columns, [plain], header=False))
        else:
            self._rewrite(EVALS)

    @_in_turn
    def rewound(self, round: int, evaluations: int, incarnation: int) -> None:  # noqa: ARG002
        self.rounds = [row for row in self.rounds if int(row["round"]) <= round]
        self.evaluations = self.evaluations[:evaluations]
        self._rewrite(ROUNDS)
        self._rewrite(EVALS)

    def event(self, event: str, /, **values: Any) -> None:
        """Write an event of now."""
        self.event_recorded(RunEvent(round(self._time(), 4), event, values))

    @_in_turn
    def event_recorded(self, event: RunEvent) -> None:
        text = _event_line(event.line)
        self.events.append(json.loads(text))
        self._append(EVENTS, text)

    @_in_turn
    def journal(self, line: dict[str, Any]) -> None:
        """Write one of the controller's events into the journal, so that its decisions can be replayed."""
        text = json.dumps(line) + "\n"
        self._journal.add(text.encode())
        self._append(JOURNAL, text)

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
