"""Read a run directory: tables, events, configuration and result."""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from raysgd_local.errors import InputError, nearest
from raysgd_local.run_files import event_lines, tables
from raysgd_local.run_files.event_lines import EVENTS
from raysgd_local.run_files.paths import expanded
from raysgd_local.run_files.tables import ABSENT, EVAL_COLUMNS, EVALS, ROUND_COLUMNS, ROUNDS, Row

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["CONFIG", "EVALS", "EVENTS", "RESULT", "ROUNDS", "Run", "enclosing", "load"]

CONFIG, RESULT = "config.yaml", "result.json"

_NUMBERS = {
    *(
        "rounds",
        "steps",
        "samples",
        "epochs",
        "elapsed_s",
        "compute_s",
        "sync_s",
        "wait_s",
        "wire_bytes",
        "train_loss",
    ),
    *("views", "workers_lost", "stall_s_max", "samples_lost", "samples_repeated", "chunks_uncovered_max"),
}
"""What `result.json` has numbers for, or null."""

_MOST = 1e18


@dataclass(frozen=True)
class Run:
    """The content of one run directory."""

    path: Path
    config: dict[str, Any]
    rounds: pd.DataFrame  # the columns of `RoundRow`
    evals: pd.DataFrame  # the columns of `EvalRow`, and one for each metric
    events: tuple[dict[str, Any], ...]  # the lines of events.jsonl
    result: dict[str, Any]  # empty while the run has not ended
    absent: Mapping[str, frozenset[int]] = field(default_factory=dict)  # rows of `evals` without this metric

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def metrics(self) -> list[str]:
        """The names of the evaluated metrics, in the task's order."""
        return [name for name in self.evals.columns if name not in EVAL_COLUMNS]

    def evaluations_of(self, metric: str) -> pd.DataFrame:
        """The evaluations that have this metric; its value may be NaN."""
        return self.evals.drop(index=list(self.absent.get(metric, ())))


def load(path: str | Path) -> Run:
    """Read the run in directory `path`, ended or not. Raises `InputError` if there is none, or it can't be read."""
    directory = Path(expanded(str(path), "run")).resolve()
    _require_run(directory, str(path))
    try:
        evaluations = _rows(directory, EVALS)
        return Run(
            directory,
            _config(directory),
            _frame(_rows(directory, ROUNDS), ROUND_COLUMNS, ABSENT),
            _frame(evaluations, EVAL_COLUMNS, {}),
            tuple(event_lines.parsed(_content(directory, EVENTS))),
            _result(directory),
            _blanks(evaluations),
        )
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError("run", str(path), "a run directory whose files can be read", why) from error


def enclosing(path: str | Path) -> Path:
    """Return the run directory that `path` is or lies in (as a checkpoint does). Raises `InputError` for none."""
    place = Path(expanded(str(path), "resume")).absolute()
    for directory in (place, *place.parents[:3]):
        if (directory / CONFIG).is_file() and place.exists():
            return directory
    hint = "it has no config.yaml" if place.exists() else _beside(place) or "it does not exist"
    raise InputError("resume", str(path), "auto, or a run directory or a checkpoint in one", hint)


def refuse_existing(storage: str, name: str) -> None:
    """Raise `InputError` if `storage/name` exists. The run itself checks remote storage."""
    run = Path(expanded(storage)).absolute() / name
    if "://" not in storage and run.exists() and not _failed_at_once(run):
        hint = "go on with it by --resume auto, or choose another name"
        raise InputError("name", name, f"a name that is not in {storage} yet", hint)


def _failed_at_once(run: Path) -> bool:
    if not (run / RESULT).is_file() or (run / "checkpoints").exists():
        return False
    return trained_nothing((run / RESULT).read_text(errors="replace"))


def trained_nothing(result: str) -> bool:
    """Whether this `result.json` is of a run that failed before its first round."""
    try:
        content = json.loads(result)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("status") == "failed" and content.get("rounds") == 0


def check_storage(storage: str) -> None:
    """Raise `InputError` if `storage` can't be a directory to write to. The run itself checks remote storage."""
    if "://" in storage:
        return
    directory = Path(expanded(storage)).absolute()
    existing = next(place for place in (directory, *directory.parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError("storage", storage, "a directory that can be written", f"{existing} can't be")


def _require_run(directory: Path, given: str) -> None:
    if not directory.is_dir():
        absent = "it is a file" if directory.exists() else _beside(directory) or "there is no such directory"
        raise InputError("run", given, "a run directory", absent)
    for name in (CONFIG, ROUNDS):
        if not (directory / name).is_file():
            raise InputError("run", given, "a run directory", f"it has no {name}")


def _beside(path: Path) -> str:
    try:
        return nearest(path.name, [other.name for other in path.parent.iterdir()])
    except OSError:
        return ""


def _content(directory: Path, name: str) -> bytes:
    path = directory / name
    if path.exists() and not path.is_file():
        raise ValueError(f"{name} is not a file")
    return path.read_bytes() if path.exists() else b""


def _config(directory: Path) -> dict[str, Any]:
    found = yaml.safe_load(_content(directory, CONFIG).decode())
    if not isinstance(found, dict | None):
        raise ValueError(f"{CONFIG} is no mapping")
    return found or {}


def _rows(directory: Path, name: str) -> list[Row]:
    return tables.parsed(name, _content(directory, name))


def _frame(rows: list[Row], columns: list[str], absent: dict[str, Any]) -> pd.DataFrame:
    """Return a table: `columns` by name, then any others. `absent` has values for columns that older versions lack."""
    import pandas as pd

    if not rows:
        return pd.DataFrame(columns=columns, dtype=float)
    table = pd.DataFrame([absent | {n: math.nan if v == "" else v for n, v in row.items()} for row in rows])
    return table[[*columns, *(column for column in table.columns if column not in columns)]]


def _blanks(rows: list[Row]) -> dict[str, frozenset[int]]:
    """Rows by column in which a table has nothing; in a frame they are NaN."""
    return {
        name: frozenset(i for i, row in enumerate(rows) if row[name] == "") for name in (rows[0] if rows else ())
    }


def _result(directory: Path) -> dict[str, Any]:
    """Return the content of `result.json`; empty while there is none."""
    content = _content(directory, RESULT)
    found = json.loads(content) if content else {}
    if not isinstance(found, dict):
        raise ValueError(f"{RESULT} is no object")
    for name in _NUMBERS & found.keys():
        if not (found[name] is None or _is_figure(found[name], may_be_nan=name == "train_loss")):
            raise ValueError(f"{RESULT}: {name} is {reprlib.repr(found[name])}")
    return found


def _is_figure(value: object, may_be_nan: bool) -> bool:
    """`may_be_nan`: as the loss of a run that diverged is."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return may_be_nan if math.isnan(value) else abs(value) <= _MOST
