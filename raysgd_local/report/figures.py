"""The report's tables: headline figures, events, and settings in which runs differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysgd_local.quantities import duration, size
from raysgd_local.report.charts import time_parts
from raysgd_local.run_files.reader import Run

MAX_EVENTS = 200


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    label: str
    cells: tuple[str, ...]  # one for each run


def headline(runs: Sequence[Run]) -> list[Row]:
    """Return the most important figures. Rows without a value in any run are left out."""
    columns = [_figures(run) for run in runs]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    rows = [Row(label, tuple(column.get(label, "–") for column in columns)) for label in labels]
    return [row for row in rows if any(cell != "–" for cell in row.cells)]


def _figures(run: Run) -> dict[str, str]:
    result, rounds = run.result, run.rounds
    elapsed = float(result.get("elapsed_s") or (rounds["elapsed_s"].max() if len(rounds) else 0))
    samples, steps = int(rounds["samples"].sum()), int(rounds["steps"].sum())
    figures = {
        "status": str(result.get("status", "not ended")),
        "task": str(result.get("task", "–")),
        "method": str(result.get("method", "–")),
    }
    figures |= {f"{name}, held out": _metric(run, name) for name in run.metrics}
    figures |= {
        "training loss": number(result.get("train_loss", rounds["loss"].iloc[-1] if len(rounds) else None)),
        "training time": duration(elapsed),
        "samples a second": f"{samples / elapsed:,.0f}" if elapsed else "–",
        "rounds": f"{len(rounds):,}",
        "optimizer steps": f"{steps:,}",
        "samples": f"{samples:,}",
        "τ, mean": number(rounds["tau"].mean() if len(rounds) else None),
        "sent": size(float(rounds["wire_bytes"].sum())),
    }
    return figures | _shares(run) | _robustness(result)


def _metric(run: Run, name: str) -> str:
    values = run.evaluations_of(name)[name]
    if not len(values):
        return "–"
    best = values.min() if "loss" in name else values.max()
    return f"{number(values.iloc[-1])} (best {number(best)})"


def _shares(run: Run) -> dict[str, str]:
    parts = time_parts(run.rounds)
    total = sum(parts.values())
    return {f"time in {part}": f"{seconds / total:.1%}" for part, seconds in parts.items() if total}


def _robustness(result: Mapping[str, Any]) -> dict[str, str]:
    names = {
        "views": "views",
        "workers_lost": "workers lost",
        "stall_s_max": "longest stall (s)",
        "samples_lost": "samples lost",
        "samples_repeated": "samples repeated",
        "chunks_uncovered_max": "chunks without a holder, most",
    }
    return {label: number(result[name]) for name, label in names.items() if name in result}


@dataclass(frozen=True)
class EventRow:
    """One event of the run, as text."""

    at: str  # time since the run's first event
    event: str  # kind
    details: str  # its other fields, in words


def events(run: Run) -> list[EventRow]:
    """Return the run's events in order. If there are very many, a line replaces those in the middle."""
    start = float(run.events[0].get("time_s", 0)) if run.events else 0.0
    rows = [_event(event, start) for event in run.events]
    if len(rows) <= MAX_EVENTS:
        return rows
    half = MAX_EVENTS // 2
    return [*rows[:half], EventRow("…", f"{len(rows) - 2 * half:,} more", "in events.jsonl"), *rows[-half:]]


def _event(event: Mapping[str, Any], start: float) -> EventRow:
    rest = (f"{key} {_words(value)}" for key, value in event.items() if key not in ("time_s", "event"))
    at = float(event.get("time_s", start)) - start
    return EventRow(f"{at:.1f}", str(event.get("event", "?")), ", ".join(rest))


def differences(runs: Sequence[Run]) -> list[Row]:
    """Return the settings in which the runs differ."""
    flat = [flatten(run.config) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [Row(key, tuple(_words(one.get(key, "–")) for one in flat)) for key in keys]
    return [row for row in rows if len(set(row.cells)) > 1 and row.label not in ("name", "storage")]


def flatten(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Flatten a tree of mappings into one, with dotted paths as keys.

    >>> flatten({"task": {"name": "digits", "epochs": 3}, "seed": 0})
    {'task.name': 'digits', 'task.epochs': 3, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return flat


def number(value: Any) -> str:
    """Format a figure; a dash if it is not known.

    >>> number(0.96111), number(12345), number(None), number(float("nan"))
    ('0.9611', '12,345', '–', 'not finite')
    """
    if value is None:
        return "–"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{float(value):.4g}" if math.isfinite(value) else "not finite"


def _words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_words, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)
