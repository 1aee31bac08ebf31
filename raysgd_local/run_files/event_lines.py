"""Read `events.jsonl` back."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from raysgd_local.control.run_events import EventName
from raysgd_local.run_files.tables import intact

EVENTS = "events.jsonl"

_MOST = 1e18

Line = dict[str, Any]

_NUMBERS = {
    EventName.VIEW_FORMED: "stall_s",
    EventName.CHUNKS_UNCOVERED: "chunks",
    EventName.RESIDUAL_LOST: "norm",
    EventName.CHUNKS_MOVED: "bytes",
}
"""By event the field that is added up, or drawn."""


def parsed(content: bytes) -> list[Line]:
    """Parse the lines of `events.jsonl`, but an incomplete last one. Raises `DamagedFileError` for other content."""
    lines = intact(EVENTS, (partial(_line, line) for line in content.split(b"\n")[:-1]))
    return [line for line in lines if line]


def _line(content: bytes) -> Line:
    if not content.strip():
        return {}
    line = json.loads(content)
    if not isinstance(line, dict) or not isinstance(line.get("event"), str):
        raise ValueError("no event")
    for name in ("time_s", *([_NUMBERS[line["event"]]] if line["event"] in _NUMBERS else [])):
        value: Any = line.get(name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not (abs(value) < _MOST or name == "norm"):  # a norm may be infinite or NaN
            raise ValueError(f"{name} is {value!r}")
    return line
