"""How a story is told: one line for an event or a command, with the fields that are not what they are by default."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum, Flag
from typing import Any

from raysgd_local.control.control_slots import Flags
from raysgd_local.control.data.deal import lengths

_SILENT = {
    *("program", "control", "manifest", "replicated", "sources", "changes", "chunks", "wire_bytes", "moved_bytes"),
    *(
        "consumed",
        "weight",
        "taken",
        "pid",
        "path",
        "sha256",
        "size_bytes",
        "exchange_s",
        "free",
        "id",
        "everyone",
    ),
    *("awake_s", "hears_s", "mode", "then", "pending", "to"),
}
"""Fields that no story is about."""


def shown(record: Any) -> str:
    """`Name(field=value, …)` without defaults; nothing in brackets if nothing is left."""
    parts = [f"{name}={_value(value)}".removeprefix("=") for name, value in _fields(record)]
    name = type(record).__name__
    return f"{name}({', '.join(parts)})" if parts else name


def _fields(record: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for field in fields(record):
        value = getattr(record, field.name)
        special = _SPECIAL.get(field.name)
        if special is not None and value is not None:
            found += special(value)
        elif field.name not in _SILENT and not _is_default(field, value):
            found.append((field.name, value))
    return found


def _is_default(field: Any, value: Any) -> bool:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return value in ((), "", None) or (default is not MISSING and value == default)


def _value(value: Any) -> str:
    if is_dataclass(value):
        return shown(value)
    if isinstance(value, Flag):
        return "+".join(str(flag.name).lower() for flag in value)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_value(one) for one in value) + ")"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, str) and not re.fullmatch(r"[\w.-]+", value):
        return f"'{value}'"
    return str(value)


_SPECIAL = {
    "replicated": lambda state: [("round", state.round), *([("stopped", state.stopped)] if state.stopped else [])],
    "program": lambda program: [("segment_rounds", 1)] if program.segment_rounds == 1 else [],
    "view": lambda view: [("view", view if isinstance(view, int) else f"{view.number}: {' '.join(view.members)}")],
    "deal": lambda deal: [("deal", "+".join(map(str, lengths(deal))))],
    "order": lambda order: _fields(order),
    "report": lambda report: [pair for pair in _fields(report) if pair[0] not in ("worker", "samples")],
    "rounds": lambda rows: [("rounds", tuple(row.round for row in rows))] if rows else [],
    "save": lambda save: [("save", save.name + (" (the last)" if save.final else ""))],
    "said": lambda said: _fields(said),
    "flags": lambda flags: [("flags", flags & ~Flags.LAST)] if flags & ~Flags.LAST else [],
    "event": lambda name: [("", name)],
    "fields": lambda given: [pair for pair in given.items() if pair[0] not in ("pid", "node")],
    "signs": lambda signs: [
        *(("silent", f"{s.worker} for {s.age_s:g} s") for s in signs if s.age_s > 1),
        *(("evaluates", f"{s.worker} for {s.evaluating.since_s:g} s") for s in signs if s.evaluating is not None),
    ],
}
"""Fields that are told in other words, by name."""


@dataclass
class Turn:
    """What one machine was told, and what it answered."""

    sources: list[str]
    targets: list[str]
    heard: str
    answers: list[str]

    def __str__(self) -> str:
        line = f"{_all(self.sources)} → {_all(self.targets)}"
        answers = [f"    {_all(self.targets)} → {answer}" for answer in self.answers]
        return "\n".join([f"{line}  {self.heard}", *answers])


def _all(names: Sequence[str]) -> str:
    return ",".join(dict.fromkeys(names))


class Telling:
    """Collects turns; those of several workers that are alike and follow each other are told as one."""

    def __init__(self) -> None:
        self._turns: list[Turn] = []

    def take(self) -> str:
        turns, self._turns = self._turns, []
        return "".join(f"{turn}\n" for turn in turns)

    def controller(self, event: Any, source: str, commands: Sequence[Any], timers: dict[int, str]) -> None:
        answers = [f"{_all(getattr(k, 'to', ('driver',)))}  {_timed(k, timers)}" for k in commands]
        self._add(Turn([source], ["controller"], _timed(event, timers), answers))

    def member(self, source: str, worker: str, event: Any, commands: Sequence[Any]) -> None:
        said = ", ".join("Arrive" if type(k).__name__ == "Arrive" else shown(k) for k in commands)
        heard = "Ordered" if type(event).__name__ == "Ordered" else shown(event)
        self._add(Turn([source], [worker], heard, [f"shell  {said}"] if said else []))

    def _add(self, turn: Turn) -> None:
        """With an equal turn before, if this one could as well have come right after it."""
        for before in reversed(self._turns):
            if (before.heard, before.answers) == (turn.heard, turn.answers):
                before.sources += turn.sources
                before.targets += turn.targets
                return
            if "controller" in turn.targets or not {"controller", *turn.targets}.isdisjoint(before.targets):
                break
        self._turns.append(turn)


def _timed(record: Any, timers: dict[int, str]) -> str:
    """With a timer's name in place of its number."""
    text, number = shown(record), getattr(record, "id", None)
    if number is None:
        return text
    return text.replace("(", f"({timers[number]}, ") if "(" in text else f"{text}({timers[number]})"
