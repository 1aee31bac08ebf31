"""Convert `rounds.csv` and `evals.csv` between text and rows. Columns go by name, to read other versions' tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from raysgd_local.control.replicated.round_row import ABSENT, COLUMNS, RoundRow
from raysgd_local.records import EvalRow
from raysgd_local.serialization import from_plain

__all__ = ["ABSENT", "EVAL_COLUMNS", "ROUND_COLUMNS", "Row"]

ROUND_COLUMNS = list(COLUMNS)
EVAL_COLUMNS = [f.name for f in fields(EvalRow) if f.name != "metrics"]

METRIC = "metric:"
"""Before the column of a metric that has the name of another column."""

Row = dict[str, Any]


def parsed(table: str) -> list[Row]:
    """Parse a CSV file with a header. Values that are numbers become numbers."""
    return [{name: _number(value) for name, value in row.items()} for row in csv.DictReader(io.StringIO(table))]


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
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
