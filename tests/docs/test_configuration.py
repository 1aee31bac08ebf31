"""`docs/configuration.md` has every key of the configuration, with its default and what is allowed there."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import AVERAGINGS, Averaging
from raysgd_local.algorithms.compression import COMPRESSIONS, Compression
from raysgd_local.algorithms.learning_rate import LearningRate
from raysgd_local.algorithms.outer import OUTERS, Outer
from raysgd_local.algorithms.placement import PLACEMENTS, ChunkPlacement
from raysgd_local.algorithms.schedules import SCHEDULES, TRIGGERS, Schedule, Trigger
from raysgd_local.algorithms.weights import WEIGHTS, Weights
from raysgd_local.config import Config
from raysgd_local.config.describe import describe
from raysgd_local.simulation.cluster.cluster_model import ClusterModel, Failures, Nodes
from raysgd_local.simulation.cluster.step_times import STEP_TIMES, StepTimes
from raysgd_local.tasks import TASKS, Optimizer, Task, find_task
from raysgd_local.tuning import Sweep

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
ROW = re.compile(
    r"^\| `(?P<key>[\w.]+)` \| (?P<default>[^|]+) \| (?P<allowed>[^|]+) \| (?P<meaning>[^|]*)\|$", re.M
)
CHOICES: Mapping[Any, tuple[str, Mapping[str, type]]] = {
    Schedule: ("kind", SCHEDULES),
    Trigger: ("kind", TRIGGERS),
    Averaging: ("kind", AVERAGINGS),
    Outer | None: ("kind", OUTERS),
    Compression | None: ("kind", COMPRESSIONS),
    ChunkPlacement: ("kind", PLACEMENTS),
    Weights: ("kind", WEIGHTS),
    StepTimes: ("kind", STEP_TIMES),
}
KINDS: Mapping[str, Mapping[str, type]] = {
    "schedule": SCHEDULES,
    "when": TRIGGERS,
    "averaging": AVERAGINGS,
    "outer": OUTERS,
    "compression": COMPRESSIONS,
    "placement": PLACEMENTS,
    "weights": WEIGHTS,
}
Row = tuple[str, str, str]  # key, default, what is allowed


def sections() -> dict[str, list[Row]]:
    """What each section of the page has to say, by its heading."""
    found: dict[str, list[Row]] = {"The whole": list(_of_model(Config, ""))}
    found["`task`, any"] = [("name", "–", f"one of {', '.join(TASKS)}, or module:Class"), *_of_dataclass(Task, "")]
    for name in TASKS:
        kind = find_task(name)
        found[f"`task.name: {name}`"] = [
            row for row in _of_dataclass(kind, "") if row not in list(_of_dataclass(Task, ""))
        ]
    found["`task.optimizer`"] = list(_of_dataclass(Optimizer, ""))
    found["`task.learning_rate`"] = list(_of_dataclass(LearningRate, ""))
    found["`algorithm`"] = list(_of_dataclass(Algorithm, ""))
    for heading, table in KINDS.items():
        for name, kind in table.items():
            found[f"`{heading}.kind: {name}`"] = list(_of_dataclass(kind, ""))
    found |= {"A cluster": list(_of_dataclass(ClusterModel, "")), "`nodes`": list(_of_dataclass(Nodes, ""))}
    found["`failures`"] = list(_of_dataclass(Failures, ""))
    found |= {f"`steps.kind: {name}`": list(_of_dataclass(kind, "")) for name, kind in STEP_TIMES.items()}
    return found | {"A sweep": list(_of_model(Sweep, ""))}


def _of_model(model: type[BaseModel], path: str) -> Iterator[Row]:
    for name, field in model.model_fields.items():
        inner = next((hint for hint in (field.annotation, *get_args(field.annotation)) if _is_model(hint)), None)
        if inner is not None:
            yield from _of_model(inner, f"{path}{name}.")
        elif name not in ("task", "algorithm"):
            default = field.get_default(call_default_factory=True)
            required = field.is_required()
            allowed = describe(typing.Annotated[(field.annotation, *field.metadata, "")])
            yield f"{path}{name}", "–" if required else _plain(default), allowed


def _of_dataclass(kind: type, path: str) -> Iterator[Row]:
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        allowed, factory = hints[field.name], field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        yield f"{path}{field.name}", _plain(default), _allowed(allowed)


def _allowed(hint: Any) -> str:
    if hint in CHOICES:
        key, table = CHOICES[hint]
        nothing = " or null" if type(None) in get_args(hint) else ""
        return f"{key}: one of {', '.join(table)}, or module:Class{nothing}"
    return describe(hint)


def _plain(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "–"
    if dataclasses.is_dataclass(value):
        name = next((n for _, table in CHOICES.values() for n, kind in table.items() if type(value) is kind), "")
        return f"`{name or _fields(value)}`"
    return f"`{json.dumps(value)}`"


def _fields(value: Any) -> str:
    defaults = {f.name: f.default for f in dataclasses.fields(value)}
    given = {name: v for name, v in vars(value).items() if v != defaults[name]}
    return "{" + ", ".join(f"{name}: {v}" for name, v in given.items()) + "}"


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def told() -> dict[str, list[Row]]:
    """What the page says, by heading."""
    parts = re.split(r"^##+ (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.M)[1:]
    pages = dict(zip(parts[0::2], parts[1::2], strict=True))
    rows = {
        name: [m.group("key", "default", "allowed") for m in ROW.finditer(text)] for name, text in pages.items()
    }
    return {name: found for name, found in rows.items() if found}


@pytest.mark.parametrize("heading", [heading for heading, rows in sections().items() if rows])
def test_each_section_tells_its_keys_their_defaults_and_what_is_allowed(heading, monkeypatch):
    monkeypatch.delenv("RAYSGD_DATA", raising=False)
    assert told()[heading] == sections()[heading]


def test_the_page_has_no_section_that_the_configuration_has_not():
    assert list(told()) == [heading for heading, rows in sections().items() if rows]


def skeleton() -> str:
    """The page's tables with nothing said yet, to start a new section from."""
    parts = []
    for heading, rows in sections().items():
        lines = [f"| `{key}` | {default} | {allowed} | |" for key, default, allowed in rows]
        parts.append(
            f"## {heading}\n\n| key | default | allowed | meaning |\n|---|---|---|---|\n" + "\n".join(lines)
        )
    return "\n\n".join(parts)
