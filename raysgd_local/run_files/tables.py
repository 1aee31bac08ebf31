"""Convert `rounds.csv` and `evals.csv` between text and rows. Columns go by name, to read other versions' tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar, get_type_hints

from raysgd_local.control.replicated.round_row import ABSENT, COLUMNS, RoundRow
from raysgd_local.records import EvalRow
from raysgd_local.serialization import from_plain

__all__ = ["ABSENT", "EVALS", "EVAL_COLUMNS", "ROUNDS", "ROUND_COLUMNS", "DamagedFileError", "Row"]

T = TypeVar("T")

ROUNDS, EVALS = "rounds.csv", "evals.csv"

ROUND_COLUMNS = list(COLUMNS)
EVAL_COLUMNS = [f.name for f in fields(EvalRow) if f.name != "metrics"]

METRIC = "metric:"
"""Before the column of a metric that has the name of another column."""

Row = dict[str, Any]


class DamagedFileError(ValueError):
    """A file of a run holds something that no run writes. The message names the file and the line."""


def parsed(name: str, content: bytes) -> list[Row]:
    """Parse `rounds.csv` or `evals.csv` (`name`). Values that are numbers become numbers.

    An incomplete last line is left out: the process that wrote it may have died. Raises `DamagedFileError` for anything
    else that a run does not write.
    """
    lines = content.split(b"\n")[:-1]
    if not lines:
        return []
    try:
        columns, first = _header(lines)
    except (ValueError, csv.Error) as error:
        raise DamagedFileError(f"{name}, line 1: {error}") from error
    check = _CHECKS[name]
    check.check_columns(name, columns)
    return intact(name, (partial(_row, line, columns, check) for line in lines[first:]), first + 1)


def intact(name: str, lines: Iterable[Callable[[], T]], first: int = 1) -> list[T]:
    """Parse the lines of file `name`, numbered from `first`. Raises `DamagedFileError` if one can't be parsed."""
    found: list[T] = []
    for number, line in enumerate(lines, start=first):
        try:
            found.append(line())
        except (ValueError, TypeError, csv.Error, RecursionError) as error:
            raise DamagedFileError(f"{name}, line {number}: {_short(error)}") from error
    return found


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST]


def _header(lines: Sequence[bytes]) -> tuple[list[str], int]:
    """Return the columns, and the number of lines that they take: names of metrics may hold line breaks."""
    taken = 1
    while sum(line.count(b'"') for line in lines[:taken]) % 2 and taken < len(lines):
        taken += 1
    text = b"\n".join(lines[:taken]).decode().removesuffix("\r")
    columns: list[str] = next(csv.reader(io.StringIO(text, newline=""), strict=True), [])
    if len(set(columns)) < len(columns):
        raise ValueError("a column occurs twice")
    return columns, taken


def _row(line: bytes, columns: Sequence[str], check: _Check) -> Row:
    text = line.decode().removesuffix("\r")
    cells = next(csv.reader([text], strict=True)) if '"' in text else text.split(",")
    if len(cells) != len(columns):
        raise ValueError(f"{len(cells)} cells under {len(columns)} columns")
    row = {name: _number(cell) for name, cell in zip(columns, cells, strict=True)}
    check.check_row(row)
    return row


@dataclass(frozen=True)
class _Check:
    """The types of a table's columns."""

    whole: frozenset[str]  # columns of whole numbers that are not negative
    real: frozenset[str]  # columns of numbers
    required: tuple[str, ...]
    others: bool  # the table's other columns hold numbers, or nothing

    @staticmethod
    def of(record: type, absent: Container[str], others: bool) -> _Check:
        hints = get_type_hints(record)
        whole, real = (
            frozenset(name for name, kind in hints.items() if kind is wanted) for wanted in (int, float)
        )
        required = tuple(f.name for f in fields(record) if f.name != "metrics" and f.name not in absent)
        return _Check(whole, real, required, others)

    def check_columns(self, name: str, columns: Iterable[str]) -> None:
        if lacking := [column for column in self.required if column not in columns]:
            raise DamagedFileError(f"{name} lacks the columns {', '.join(lacking)}")

    def check_row(self, row: Row) -> None:
        for name, value in row.items():
            if name in self.whole:
                good = isinstance(value, int) and 0 <= value <= _MOST
            elif name in self.real:
                good = isinstance(value, (int, float)) and (name in _NOT_FINITE or abs(value) <= _MOST)
            else:
                good = not self.others or value == "" or not isinstance(value, str)
            if not good:
                raise ValueError(f"{name} is {value!r}")


def text(columns: Sequence[str], rows: Iterable[Row], header: bool) -> str:
    """The inverse of `parsed`."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    if any("\r" in name for name in columns):  # the csv module doesn't quote for it
        writer = csv.DictWriter(stream, columns, lineterminator="\n", quoting=csv.QUOTE_ALL)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def round_columns(written: Sequence[Row]) -> list[str]:
    """Return this version's columns, then those of a later version, so that resuming its run loses none."""
    return [*ROUND_COLUMNS, *(name for name in (written[0] if written else ()) if name not in ROUND_COLUMNS)]


def eval_columns(rows: Iterable[Row]) -> list[str]:
    """Return the columns of `evals.csv`: the fixed ones, then all metrics."""
    metrics = {name for row in rows for name in row} - set(EVAL_COLUMNS)
    return [*EVAL_COLUMNS, *sorted(metrics)]


def eval_plain(row: EvalRow) -> Row:
    """Return an evaluation's row, with a column for each metric."""
    metrics = {metric_column(name): value for name, value in row.metrics.items()}
    return {name: getattr(row, name) for name in EVAL_COLUMNS} | metrics


def metric_column(name: str) -> str:
    """Return the column of a metric: its name, unless that is taken.

    >>> metric_column("accuracy"), metric_column("epoch")
    ('accuracy', 'metric:epoch')
    """
    taken = name in EVAL_COLUMNS or not name or name.startswith(METRIC)
    return f"{METRIC}{name}" if taken else name


def round_row(row: Row) -> RoundRow:
    """The inverse of `asdict`, without the columns of later versions."""
    return from_plain(RoundRow, {name: row[name] for name in ROUND_COLUMNS})


def eval_row(row: Row) -> EvalRow:
    """The inverse of `eval_plain`."""
    metrics = {
        name.removeprefix(METRIC): value for name, value in row.items() if name not in EVAL_COLUMNS and value != ""
    }
    return from_plain(EvalRow, {name: row[name] for name in EVAL_COLUMNS} | {"metrics": metrics})


def _number(text: str) -> Any:
    if "_" in text or not text.isascii():  # Python would read 1_0 and other scripts' digits
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


_LONGEST = 200  # characters of a reason
_MOST = 2**62
_NOT_FINITE = ("loss", "lr")  # columns whose numbers may be infinite or NaN

_CHECKS = {
    ROUNDS: _Check.of(RoundRow, ABSENT, others=False),
    EVALS: _Check.of(EvalRow, (), others=True),
}
