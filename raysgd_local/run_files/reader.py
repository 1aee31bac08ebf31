"""Read a run directory: tables, events, configuration and result."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from raysgd_local.errors import InputError, nearest
from raysgd_local.run_files.paths import expanded
from raysgd_local.run_files.tables import ABSENT, EVAL_COLUMNS, ROUND_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

CONFIG, ROUNDS, EVALS, EVENTS, RESULT = "config.yaml", "rounds.csv", "evals.csv", "events.jsonl", "result.json"


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
        return Run(
            directory,
            yaml.safe_load((directory / CONFIG).read_text(encoding="utf-8")) or {},
            _table(directory / ROUNDS, ROUND_COLUMNS, ABSENT),
            _table(directory / EVALS, EVAL_COLUMNS, {}),
            _events(directory / EVENTS),
            json.loads((directory / RESULT).read_text()) if (directory / RESULT).exists() else {},
            _blanks(directory / EVALS),
        )
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError("run", str(path), "a run directory whose files can be read", why) from error


def enclosing(path: str | Path) -> Path:
    """Return the run directory that `path` is or lies in (as a checkpoint does). Raises `InputError` for none."""
    place = Path(expanded(str(path), "resume")).absolute()
    for directory in (place, *place.parents[:3]):
        if (directory / CONFIG).is_file() and place.exists():
            return directory
    hint = _beside(place) or ("it has no config.yaml" if place.exists() else "it does not exist")
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
    except ValueError:
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


def _table(path: Path, columns: list[str], absent: dict[str, Any]) -> pd.DataFrame:
    """Read a table: `columns` by name, then any others. `absent` has values for columns that older versions lack."""
    import pandas as pd

    if not path.exists() or path.stat().st_size == 0:
        return pd.DataFrame(columns=columns, dtype=float)
    table = pd.read_csv(path)
    table = table if len(table) else table.astype(float)  # without rows no type was read
    table = table.assign(**{column: value for column, value in absent.items() if column not in table.columns})
    if lacking := [column for column in columns if column not in table.columns]:
        raise ValueError(f"{path.name} lacks the columns {', '.join(lacking)}")
    return table[[*columns, *(column for column in table.columns if column not in columns)]]


def _blanks(path: Path) -> dict[str, frozenset[int]]:
    """Rows by column in which a table has nothing; pandas takes them for NaN."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {
        name: frozenset(i for i, row in enumerate(rows) if row[name] == "") for name in (rows[0] if rows else ())
    }


def _events(path: Path) -> tuple[dict[str, Any], ...]:
    """Read the events, without a last incomplete line."""
    lines = path.read_text().split("\n") if path.exists() else []
    return tuple(json.loads(line) for line in lines[:-1] if line.strip())
