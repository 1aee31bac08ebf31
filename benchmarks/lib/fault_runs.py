"""Runs with faults: their events, the faults' costs, and the invariants that no fault may break."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lib import clusters
from raysgd_local.faults.language import parse
from raysgd_local.run_files.reader import Run

if TYPE_CHECKING:
    import pandas as pd

TAU = 8  # averaging period of runs with faults


def named(run: Run, event: str) -> list[dict[str, Any]]:
    return [e for e in run.events if e["event"] == event]


@dataclass(frozen=True)
class Strike:
    """A fault's moment (Unix seconds) and the worker that it happened to; the driver where that is empty."""

    time_s: float
    worker: str


def strikes(run: Run) -> list[Strike]:
    return [Strike(e["time_s"], e["worker"]) for e in named(run, "chaos_fired")]


def stalls(run: Run, strikes: Sequence[Strike]) -> list[float]:
    """For each fault of a member the time to the first committed round of a later view, less that round's computing.

    Of faults that one view answers the first counts.
    """
    computing = run.rounds.groupby("view")["compute_s"].first()
    joined = {e["worker"]: e["time_s"] for e in named(run, "worker_joined")}
    found: dict[float, float] = {}
    for strike in strikes:
        if joined.get(strike.worker, math.inf) < strike.time_s or not strike.worker:
            view = next((e for e in named(run, "view_formed") if e["time_s"] > strike.time_s), None)
            if view is not None:
                stall_s = view["time_s"] - strike.time_s - float(computing.get(view["view"], 0.0))
                found.setdefault(view["time_s"], stall_s)  # a restarted driver counts views anew
    return list(found.values())


def joins(run: Run) -> list[float]:
    """For each view with more workers than the one before: the training time that its first round does not explain."""
    rows = run.rounds.to_dict("records")
    return [
        row["elapsed_s"] - before["elapsed_s"] - row["compute_s"] - row["wait_s"] - row["sync_s"]
        for before, row in itertools.pairwise(rows)
        if row["workers"] > before["workers"] and row["incarnation"] == before["incarnation"]
    ]


def round_s(rows: pd.DataFrame) -> pd.Series[float]:
    """Sum each round's computing, averaging and waiting."""
    return rows[["compute_s", "sync_s", "wait_s"]].sum(axis=1)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the number of values and, if there are any, their median and maximum."""
    figures = {"median": statistics.median(values), "max": max(values)} if values else {}
    return {"n": len(values), **{name: round(value, 3) for name, value in figures.items()}}


def ends(words: str) -> bool:
    """Whether the worker that this happens to is gone after it."""
    (fault,) = parse(words)
    return fault.kind in ("kill", "drain", "sigterm", "error") or (fault.kind == "stop" and fault.amount > 2)


def unsound(run: Run) -> list[str]:
    """List the broken invariants that hold whatever the fault."""
    result = run.result
    joined = [e["pid"] for e in named(run, "worker_joined")]
    said = {
        "a process joined twice": len(joined) == len(set(joined)),
        f"{result['samples_lost']} samples lost": result["samples_lost"] == 0,
        f"{result['samples_repeated']} samples repeated": result["samples_repeated"] == 0,
        f"status {result['status']}": result["status"] == "finished",
        "rounds are missing": run.rounds["round"].tolist() == list(range(1, len(run.rounds) + 1)),
    }
    return [what for what, holds in said.items() if not holds]


def left_behind(limit_s: float = 30.0) -> str:
    """Describe the resources that a run still holds after `limit_s`; empty if none."""
    end = time.monotonic() + limit_s
    while clusters.free().get("CPU") != clusters.total().get("CPU"):
        if time.monotonic() > end:
            return f"{clusters.free()} of {clusters.total()} are free"
        time.sleep(0.1)
    return ""
