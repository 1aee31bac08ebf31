"""The journal of a run: the controller's events, from which its decisions can be replayed.

`raysgd-local replay RUN` replays them, and prints where today's controller decides differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args

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
from raysgd_local.run_files.writer import JOURNAL
from raysgd_local.serialization import from_plain, to_plain

_BEGUN = "Begun"
SCHEMA = 2
"""The schema of the lines that this version writes. It reads schema 1 too, whose first line names no schema."""

_EVENTS: dict[str, type] = {kind.__name__: kind for kind in get_args(Event)}

Line = dict[str, Any]


def begun(settings: Settings, resume: Line | None, incarnation: int = 1) -> Line:
    """Return the first line of a driver's life: the controller's settings and starting point.

    `resume` is the manifest of the checkpoint to go on from; without one, the run begins as this `incarnation`.
    """
    return {
        "kind": _BEGUN,
        "schema": SCHEMA,
        "settings": _tagged(settings),
        "resume": resume,
        "incarnation": incarnation,
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
    plain = [[type(command).__name__, plain_form(command)] for command in commands]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


class JournalWriter:
    """Collects entries until `flush`. Leaves out heartbeats without commands, which don't change the state."""

    def __init__(self, write: Callable[[Line], None]) -> None:
        self._write = write
        self._unwritten: list[tuple[Event, float, Sequence[Command]]] = []

    def begin(self, settings: Settings, resume: Line | None, incarnation: int) -> None:
        self._write(begun(settings, resume, incarnation))

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
    state: Controller | None = None
    schema = SCHEMA
    for number, line in enumerate(lines, start=1):
        if line.get("kind") == _BEGUN:
            schema = _schema(line)
            plain = line["settings"]
            settings: Settings = _untagged(journal_schema1.plain_settings(plain) if schema == 1 else plain)
            resume = line["resume"] and snapshot_of(line["resume"], settings.program.schedule)
            state = begin(settings, resume, line["incarnation"])
            continue
        if state is None:
            raise InputError("journal", line.get("kind"), f"a journal that begins with a line {_BEGUN!r}")
        event = _event(line, schema, state.settings.program.schedule)
        state, commands = controller.advance(state, event, line["now"])
        plain_form = journal_schema1.plain_command if schema == 1 else to_plain
        yield Replayed(number, line["now"], event, commands, _digest(commands, plain_form) == line["commands"])


def _schema(line: Line) -> int:
    schema: int = line.get("schema", 1)
    if schema not in (1, SCHEMA):
        raise InputError("journal", schema, f"a journal of schema 1 or {SCHEMA}")
    return schema


def read(directory: str | Path) -> list[Line]:
    """Read the lines of a run's journal, without a last incomplete one. Raises `InputError` if there is none."""
    path = Path(directory) / JOURNAL
    if not path.is_file():
        raise InputError("run", str(directory), f"a run directory with a {JOURNAL}")
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


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
