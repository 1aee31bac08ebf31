"""The journal of a run: the controller's events, from which its decisions can be replayed.

`raysgd-local replay RUN` replays them, and prints where today's controller decides differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from raysgd_local.algorithms.schedules.base import Schedule
from raysgd_local.control.controller import machine as controller
from raysgd_local.control.controller.checkpoints import snapshot_of
from raysgd_local.control.controller.events import Arrived, Command, Event, Heartbeat
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.controller.state import Controller, begin
from raysgd_local.errors import InputError
from raysgd_local.import_path import class_path
from raysgd_local.run_files import journal_schema1
from raysgd_local.run_files.journal_classes import find_record
from raysgd_local.run_files.tables import DamagedFileError, intact
from raysgd_local.run_files.writer import JOURNAL
from raysgd_local.serialization import from_plain, to_plain

_BEGUN = "Begun"
SCHEMA = 2
"""The schema of the lines that this version writes. It reads schema 1 too, whose first line names no schema."""

_EVENTS: dict[str, type] = {kind.__name__: kind for kind in get_args(Event)}

Line = dict[str, Any]
T = TypeVar("T")


def begun(
    settings: Settings, resume: Line | None, incarnation: int = 1, older: Iterable[Line] = (), taken: int = 0
) -> Line:
    """Return the first line of a driver's life: the controller's settings and starting point.

    `resume` is the manifest of the checkpoint to go on from; without one, the run begins as this `incarnation`. `older`
    and `taken` are as in `begin`.
    """
    return {
        "kind": _BEGUN,
        "schema": SCHEMA,
        "settings": _tagged(settings),
        "resume": resume,
        "incarnation": incarnation,
        "older": list(older),
        "taken": taken,
    }


def entry(event: Event, now: float, commands: Sequence[Command]) -> Line:
    """Return the line of one event, with a digest of its commands."""
    return {"now": now, "kind": type(event).__name__, "event": to_plain(event), "commands": digest(commands)}


def digest(commands: Sequence[Command]) -> str:
    """Return a digest that is equal for equal commands; empty for none."""
    return _digest(commands, to_plain)


def _digest(commands: Sequence[Command], plain_form: Callable[[Command], Any]) -> str:
    if not commands:
        return ""
    plain = [[type(command).__name__, _as_before(plain_form(command))] for command in commands]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


_SILENT = {
    **dict.fromkeys(("epochs", "across_epochs", "redeal", "unsure", "of_all"), 0),
    **{name: [] for name in ("later", "loops", "skips", "at_odds", "ahead", "left")},
    "begun": -1,
    "measured": "",
    **{name: [] for name in ("splits", "found", "measure", "later_pending")},
}
"""Fields that orders have for rounds across epochs and for streams, with the values that they have without."""


def _as_before(plain: Any) -> Any:
    """Leave out fields that came later, where they say nothing: digests of runs from before stay what they were."""
    if isinstance(plain, dict):
        silent = {key for key, absent in _SILENT.items() if key in plain and plain[key] == absent}
        return {key: _as_before(value) for key, value in plain.items() if key not in silent}
    return [_as_before(item) for item in plain] if isinstance(plain, (list, tuple)) else plain


class JournalWriter:
    """Collects entries until `flush`. Leaves out heartbeats without commands, which don't change the state."""

    def __init__(self, write: Callable[[Line], None]) -> None:
        self._write = write
        self._unwritten: list[tuple[Event, float, Sequence[Command]]] = []

    def begin(
        self,
        settings: Settings,
        resume: Line | None,
        incarnation: int,
        older: Iterable[Line] = (),
        taken: int = 0,
    ) -> None:
        self._write(begun(settings, resume, incarnation, older, taken))

    def heard(self, event: Event, now: float, commands: Sequence[Command]) -> None:
        if commands or not isinstance(event, Heartbeat):
            self._unwritten.append((event, now, commands))

    def flush(self) -> None:
        for event, now, commands in self._unwritten:
            self._write(entry(event, now, commands))
        self._unwritten.clear()


@dataclass(frozen=True)
class Replayed:
    """One replayed event."""

    line: int  # number in the journal, from 1
    now: float  # its time, by the driver's clock
    event: Event
    commands: tuple[Command, ...]  # of today's controller
    same: bool  # the recorded commands were equal


def replay(lines: Iterable[Line]) -> Iterator[Replayed]:
    """Replay a journal with the real controller. Raises `InputError` if the lines are no journal."""
    life: _Life | None = None
    for number, line in enumerate(lines, start=1):
        if _kind(line) == _BEGUN:
            life = _part(number, partial(_life, line))
            continue
        if life is None:
            raise InputError("journal", _kind(line), f"a journal that begins with a line {_BEGUN!r}")
        yield _part(number, partial(life.step, number, line))


class _Life:
    """A driver's life: the controller, as the journal leads it on."""

    def __init__(self, state: Controller, schema: int) -> None:
        self._state, self._schema = state, schema

    def step(self, number: int, line: Line) -> Replayed:
        schema, now = self._schema, float(line["now"])
        event = _event(line, schema, self._state.settings.program.schedule)
        self._state, commands = controller.advance(self._state, event, now)
        plain_form = journal_schema1.plain_command if schema == 1 else to_plain
        return Replayed(number, now, event, commands, _digest(commands, plain_form) == line["commands"])


def _life(line: Line) -> _Life:
    schema = _schema(line)
    plain = line["settings"]
    settings: Settings = _untagged(journal_schema1.plain_settings(plain) if schema == 1 else plain)
    if not isinstance(settings, Settings):
        raise InputError("journal", type(settings).__name__, "the settings of a controller")
    resume, *older = (
        manifest and snapshot_of(manifest, settings.program.schedule)
        for manifest in (line["resume"], *line.get("older", ()))
    )
    return _Life(begin(settings, resume, line["incarnation"], older, line.get("taken", 0)), schema)


def _kind(line: Any) -> Any:
    return line.get("kind") if isinstance(line, dict) else None


def _part(number: int, part: Callable[[], T]) -> T:
    """Carry out a part of the replay. Raises `InputError`, with the line's number, for whatever goes wrong in it."""
    try:
        return part()
    except InputError:
        raise
    except Exception as error:  # a damaged line may lead the controller anywhere
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError("journal", f"line {number}", "a line that a run writes", why) from error


def _schema(line: Line) -> int:
    schema: int = line.get("schema", 1)
    if schema not in (1, SCHEMA) or isinstance(schema, bool):
        raise InputError("journal", schema, f"a journal of schema 1 or {SCHEMA}")
    return schema


def read(directory: str | Path) -> list[Line]:
    """Read the lines of a run's journal, without a last incomplete one. Raises `InputError` if there is none."""
    path = Path(directory) / JOURNAL
    if not path.is_file():
        raise InputError("run", str(directory), f"a run directory with a {JOURNAL}")
    try:
        return intact(JOURNAL, (partial(_line, line) for line in path.read_bytes().split(b"\n")[:-1]))
    except (OSError, DamagedFileError) as error:
        raise InputError(
            "run", str(directory), f"a run directory with a {JOURNAL} that can be read", str(error)
        ) from error


def _line(content: bytes) -> Line:
    line = json.loads(content)
    if not isinstance(line, dict):
        raise ValueError("no object")
    return line


def _event(line: Line, schema: int, schedule: Schedule) -> Event:
    kind = _EVENTS.get(line.get("kind", ""))
    if kind is None:
        raise InputError("journal", line.get("kind"), f"one of {', '.join(_EVENTS)}")
    plain = journal_schema1.plain_event(line["kind"], line["event"]) if schema == 1 else line["event"]
    event: Event = from_plain(kind, plain)
    if isinstance(event, Arrived) and event.report.replicated is not None:
        state = replace(event.report.replicated, schedule=schedule.restore(event.report.replicated.schedule))
        event = Arrived(replace(event.report, replicated=state))
    return event


def _tagged(value: Any) -> Any:
    """Return plain (JSON) values with the class of each record: settings hold schedules and placements of any kind."""
    if is_dataclass(value) and not isinstance(value, type):
        plain = {field.name: _tagged(getattr(value, field.name)) for field in fields(value) if field.init}
        return {"class": class_path(type(value)), **plain}
    return [_tagged(item) for item in value] if isinstance(value, (list, tuple)) else value


def _untagged(plain: Any) -> Any:
    if isinstance(plain, dict):
        kind = find_record(plain.get("class"))
        return kind(**{name: _untagged(item) for name, item in plain.items() if name != "class"})
    return tuple(_untagged(item) for item in plain) if isinstance(plain, list) else plain


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="raysgd-local replay", description=__doc__)
    parser.add_argument("run", help="a run directory")
    parser.add_argument("--show", action="store_true", help="print every event and what came of it")
    options = parser.parse_args(arguments)
    return report(options.run, options.show)


def report(directory: str | Path, show: bool = False) -> int:
    """Replay a run's journal; print the events with other commands (`show`: all events), and return the exit status.

    Raises `InputError` if there is no journal.
    """
    events = differing = 0
    for step in replay(read(directory)):
        events, differing = events + 1, differing + (not step.same)
        if show or not step.same:
            print(f"line {step.line}, {step.now:.3f} s: {step.event}")
            print("".join(f"  {'' if step.same else 'now '}{command}\n" for command in step.commands), end="")
    print(f"{events} events, {differing} of them with other commands than then")
    return 1 if differing else 0
