"""Check, before a resume, that the files to go on with can be read, and tell which rows they lack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from raysgd_local.control.replicated.state import Replicated
from raysgd_local.errors import InputError
from raysgd_local.run_files import event_lines, tables
from raysgd_local.run_files.event_lines import EVENTS
from raysgd_local.run_files.storage import Storage
from raysgd_local.run_files.tables import EVALS, ROUNDS, Row

_PARSE: dict[str, Callable[[bytes], Sequence[Any]]] = {
    ROUNDS: lambda content: tables.parsed(ROUNDS, content),
    EVALS: lambda content: tables.parsed(EVALS, content),
    EVENTS: event_lines.parsed,
    "journal.jsonl": lambda _: (),
}


def check_files(storage: Storage, state: Replicated | None) -> dict[str, int]:
    """Return which rows before a checkpoint with this state the tables lack, as `lacking` does.

    Raises `InputError` if a file can't be read: a resume would add to it.
    """
    found = {name: _read(storage, name) for name in _PARSE}
    for name in (ROUNDS, EVALS):
        _check_order(storage, name, [row["round"] for row in found[name]], strict=name == ROUNDS)
    return lacking(found[ROUNDS], found[EVALS], state) if state is not None else {}


def _read(storage: Storage, name: str) -> Sequence[Any]:
    try:
        return _PARSE[name](storage.read(name)) if storage.exists(name) else ()
    except (OSError, tables.DamagedFileError) as error:
        hint = f"{error}; to go on without what is in it, move {name} to another place"
        raise InputError("resume", storage.root, "a run directory whose files can be read", hint) from error


def _check_order(storage: Storage, name: str, rounds: Sequence[int], strict: bool) -> None:
    """Raise `InputError` unless the rows are in order: two commands once wrote into one table, or lines were moved."""
    for before, after in pairwise(rounds):
        if after < before or (strict and after == before):
            hint = (
                f"in {name} round {after} follows round {before}; move {name} to another place to go on without it"
            )
            raise InputError("resume", storage.root, "a run directory with tables in order", hint)


def lacking(rounds: Sequence[Row], evaluations: Sequence[Row], state: Replicated) -> dict[str, int]:
    """Return the rounds (number, first, last) and the number of evaluations before `state` that tables lack."""
    known = {row["round"] for row in rounds}
    missing = [number for number in range(1, state.round + 1) if number not in known]
    gap = {"rounds": len(missing), "first": missing[0], "last": missing[-1]} if missing else {}
    fewer = state.evaluations - len(evaluations)
    return gap | ({"evaluations": fewer} if fewer > 0 else {})
