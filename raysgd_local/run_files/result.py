"""`result.json`: the summary of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.controller.events import Finish
from raysgd_local.control.run_events import EventName
from raysgd_local.run_files import tables
from raysgd_local.run_files.writer import RunFiles


@dataclass(frozen=True)
class Names:
    """The names of a run's method and task, for tables."""

    method: str
    task: str


def result(files: RunFiles, books: Books | None, finish: Finish, names: Names) -> dict[str, Any]:
    """Totals over the whole run, resumes included, and of each metric the newest value."""
    state = books.replicated if books else None
    ledger = books.ledger if books else None
    rounds, events = files.rounds, files.events
    losses = [float(row["loss"]) for row in rounds if not math.isnan(float(row["loss"]))]
    stalls = [float(e["stall_s"]) for e in events if e["event"] == EventName.VIEW_FORMED]
    return {
        "schema": 1,
        "status": finish.status if finish.status in ("finished", "interrupted") else "failed",
        "reason": finish.reason,
        "method": names.method,
        "task": names.task,
        "rounds": len(rounds),
        "steps": state.steps if state else 0,
        "samples": state.samples if state else 0,
        "epochs": state.epoch if state else 0,
        "elapsed_s": float(rounds[-1]["elapsed_s"]) if rounds else 0.0,
        **{name: sum(float(row[name]) for row in rounds) for name in ("compute_s", "sync_s", "wait_s")},
        "wire_bytes": sum(int(row["wire_bytes"]) for row in rounds),
        "train_loss": losses[-1] if losses else None,
        "eval": _newest(files),
        "views": sum(e["event"] == EventName.VIEW_FORMED for e in events),
        "workers_lost": sum(e["event"] == EventName.WORKER_LOST for e in events),
        "stall_s_max": max(stalls, default=0.0),
        "samples_lost": ledger.samples_lost if ledger else 0,
        "samples_repeated": ledger.samples_repeated if ledger else 0,
        **{name: getattr(ledger, name, 0) for name in ("rows_split", "shards_unread")},
        **skipped(events),
        "chunks_uncovered_max": max(
            (e["chunks"] for e in events if e["event"] == EventName.CHUNKS_UNCOVERED), default=0
        ),
        "driver_restarts": sum(e["event"] == EventName.DRIVER_RESTARTED for e in events),
        "storage_failures": sum(e["event"] == EventName.STORAGE_FAILED for e in events),
        "residual_lost": sum(e["norm"] for e in events if e["event"] == EventName.RESIDUAL_LOST),
        "moved_bytes": sum(e["bytes"] for e in events if e["event"] == EventName.CHUNKS_MOVED),
        "checkpoints_failed": sum(e["event"] == EventName.CHECKPOINT_FAILED for e in events),
        "checkpoints_damaged": sum(e["event"] == EventName.CHECKPOINT_DAMAGED for e in events),
    }


def skipped(events: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the shards that broke, and the rows that they lack as far as known: several workers may tell of one."""
    rows = {event["shard_skipped"]: event["rows"] for event in events if "shard_skipped" in event}
    return {"shards_skipped": len(rows), "rows_skipped": sum(count or 0 for count in rows.values())}


def _newest(files: RunFiles) -> dict[str, float]:
    """The newest value of each metric, by name."""
    values = {name: value for row in files.evaluations for name, value in tables.eval_row(row).metrics.items()}
    return dict(sorted(values.items()))


def strict_json(content: dict[str, Any]) -> str:
    r"""`result.json` as text, which any reader takes: null stands for numbers that are not finite.

    >>> strict_json({"train_loss": float("nan"), "eval": {"perplexity": float("inf")}, "rounds": 3})
    '{\n "train_loss": null,\n "eval": {\n  "perplexity": null\n },\n "rounds": 3\n}'
    """
    return json.dumps(_finite(content), indent=1, allow_nan=False)


def _finite(plain: Any) -> Any:
    match plain:
        case float():
            return plain if math.isfinite(plain) else None
        case dict():
            return {key: _finite(value) for key, value in plain.items()}
        case list() | tuple():
            return [_finite(value) for value in plain]
    return plain
