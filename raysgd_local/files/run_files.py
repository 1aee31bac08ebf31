"""The run directory as it is written: tables, events, journal, result. Nothing but resolved rounds goes in."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from raysgd_local.control.controller_events import RecordRounds
from raysgd_local.files.storage import Storage
from raysgd_local.records import EvalRow, RoundRow

ROUNDS, EVALS, EVENTS, JOURNAL = "rounds.csv", "evals.csv", "events.jsonl", "journal.jsonl"
RESULT = "result.json"
OWN_FILES = (ROUNDS, EVALS, EVENTS, JOURNAL, RESULT)
_ROUND_COLUMNS = [f.name for f in fields(RoundRow)]
_EVAL_COLUMNS = [f.name for f in fields(EvalRow) if f.name != "metrics"]

Row = dict[str, Any]


class RunFiles:
    """Appends to a run's files. On storage that can't append they grow in a local folder and are copied there.

    `time` gives Unix seconds for `events.jsonl`. Opening an existing run directory goes on in its files.
    """

    def __init__(self, storage: Storage, time: Callable[[], float]) -> None:
        self._storage, self._time = storage, time
        self._staging = None if storage.local else tempfile.TemporaryDirectory(prefix="raysgd-local-")
        self._folder = storage.local or Path(self._staging.name if self._staging else "")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._dirty: set[str] = set()
        self._fetch()
        self.rounds = [_numbers(row) for row in self._read_table(ROUNDS)]
        self.evaluations = [_numbers(row) for row in self._read_table(EVALS)]
        self.events = [json.loads(line) for line in self._read(EVENTS).splitlines()]

    def _fetch(self) -> None:
        """What an earlier incarnation left on storage that is not this machine's."""
        if self._staging is None:
            return
        for name in (ROUNDS, EVALS, EVENTS, JOURNAL):
            if self._storage.exists(name):
                (self._folder / name).write_bytes(self._storage.read(name))

    def _read(self, name: str) -> str:
        path = self._folder / name
        return path.read_text() if path.exists() else ""

    def _read_table(self, name: str) -> list[Row]:
        return list(csv.DictReader(io.StringIO(self._read(name))))

    def _append(self, name: str, text: str) -> None:
        with (self._folder / name).open("a") as stream:
            stream.write(text)
        self._dirty.add(name)

    def _rewrite(self, name: str, columns: list[str], rows: Iterable[Row]) -> None:
        draft = self._folder / f"{name}.tmp"
        draft.write_text(_table(columns, rows, header=True))
        draft.replace(self._folder / name)
        self._dirty.add(name)

    def record(self, resolved: RecordRounds) -> None:
        """Append resolved rounds and evaluations."""
        rows = [asdict(row) for row in resolved.rounds]
        header = not self.rounds and not (self._folder / ROUNDS).exists()
        if rows:
            self._append(ROUNDS, _table(_ROUND_COLUMNS, rows, header=header))
            self.rounds += rows
        for row in resolved.evaluations:
            self._record_evaluation(row)

    def _record_evaluation(self, row: EvalRow) -> None:
        known = self._evaluation_columns()
        plain: Row = {name: getattr(row, name) for name in _EVAL_COLUMNS} | row.metrics
        self.evaluations.append(plain)
        columns = self._evaluation_columns()
        if columns == known and (self._folder / EVALS).exists():
            self._append(EVALS, _table(columns, [plain], header=False))
        else:
            self._rewrite(EVALS, columns, self.evaluations)

    def _evaluation_columns(self) -> list[str]:
        metrics = {name for row in self.evaluations for name in row} - set(_EVAL_COLUMNS)
        return [*_EVAL_COLUMNS, *sorted(metrics)]

    def rewind(self, round: int, evaluations: int) -> None:
        """What came after a checkpoint that the run goes back to did not happen."""
        self.rounds = [row for row in self.rounds if int(row["round"]) <= round]
        self.evaluations = self.evaluations[:evaluations]
        self._rewrite(ROUNDS, _ROUND_COLUMNS, self.rounds)
        self._rewrite(EVALS, self._evaluation_columns(), self.evaluations)

    def event(self, event: str, **values: Any) -> None:
        line = {"time_s": round(self._time(), 4), "event": event, **values}
        self.events.append(line)
        self._append(EVENTS, json.dumps(line) + "\n")

    def journal(self, line: dict[str, Any]) -> None:
        """One input of the controller, so that what it decided can be replayed."""
        self._append(JOURNAL, json.dumps(line) + "\n")

    def write(self, name: str, text: str) -> None:
        """A whole file, such as `config.yaml` and `result.json`."""
        self._storage.write(name, text.encode())

    def copy_out(self) -> None:
        """Bring the storage up to date, where it is not this machine's file system."""
        if self._staging is None:
            return
        for name in sorted(self._dirty):
            self._storage.write(name, (self._folder / name).read_bytes())
        self._dirty.clear()


def _table(columns: list[str], rows: Iterable[Row], header: bool) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _numbers(row: Row) -> Row:
    """A row as read back: numbers where there are numbers."""
    return {name: _number(value) for name, value in row.items()}


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
