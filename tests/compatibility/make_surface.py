"""Everything that users and their files rely on, as one JSON text: `python make_surface.py > surface.json`.

Works on any checkout (the one that `PYTHONPATH` names), also from before the code moved to the folders it is in now.
`surface.json` is that of the commit before the move; a test compares today's with it.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import importlib
import inspect
import json
import re
import subprocess
import sys
import tempfile
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import raysgd_local
from raysgd_local import errors, tasks, tuning
from raysgd_local.config import Config, alternatives, cluster
from raysgd_local.tasks import find_task

PACKAGE = Path(raysgd_local.__file__).parent
SIMULATED = (  # a run of a second; what it writes is what a real run writes
    *("simulate", "--name", "run", "--workers", "2", "--chaos", "kill:1@round=3", "--set", "workers.min=1"),
    *("--set", "task.epochs=1", "--set", "checkpoints.every_epochs=1"),
)


def surface() -> dict[str, Any]:
    """Sections by name, each JSON-able. Lists are sets of names, mappings hold values that stay."""
    return {
        "public names": public_names(),
        "signatures": signatures(),
        "commands": commands(),
        "configuration": settings_of(Config),
        "cluster file": settings_of(cluster.ClusterModel),
        "sweep file": settings_of(tuning.Sweep),
        "kinds": kinds(),
        "recipes": recipes(),
        "exit statuses": exit_statuses(),
        "faults": faults(),
        "events": sorted(event_names()),
        "run directory": run_directory(),
    }


def public_names() -> dict[str, list[str]]:
    modules = {"raysgd_local": raysgd_local, "raysgd_local.tasks": tasks, "raysgd_local.tuning": tuning}
    return {name: sorted(module.__all__) for name, module in modules.items()}


def signatures() -> dict[str, dict[str, str]]:
    """The parameters and their defaults of every public function, class and method."""
    found = {}
    for module, names in public_names().items():
        for name in names:
            found |= dict(_signatures(getattr(importlib.import_module(module), name), name))
    return found


def _signatures(value: Any, name: str) -> Iterator[tuple[str, dict[str, str]]]:
    if not callable(value):
        return
    yield name, _parameters(value)
    for attribute in dir(value) if inspect.isclass(value) else ():
        member = inspect.getattr_static(value, attribute)
        if attribute.startswith("_") or not _own(value, attribute):
            continue
        if isinstance(member, (staticmethod, classmethod, types.FunctionType)):
            yield f"{name}.{attribute}", _parameters(getattr(value, attribute))
        elif isinstance(member, property):
            yield f"{name}.{attribute}", {}


def _own(kind: type, attribute: str) -> bool:
    """Whether this package says it, not pydantic or Python."""
    home = next(base for base in kind.__mro__ if attribute in vars(base))
    return home.__module__.startswith("raysgd_local")


def _parameters(value: Any) -> dict[str, str]:
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:  # an exception's without an `__init__` of its own
        return {}
    return {p.name: "" if p.default is p.empty else _plain(p.default) for p in parameters if p.name != "self"}


def commands() -> dict[str, dict[str, Any]]:
    """Every command's arguments and options, by the names that are typed."""
    import typer

    app = _first(("raysgd_local.cli.app", "raysgd_local.cli"), "app")
    group: Any = typer.main.get_command(app)
    found = {"raysgd-local": group, **group.commands}
    return {name: {_typed(p): _parameter(p) for p in command.params} for name, command in found.items()}


def _typed(parameter: Any) -> str:
    return " ".join(sorted(parameter.opts)) if parameter.opts[0].startswith("-") else parameter.name


def _parameter(parameter: Any) -> dict[str, Any]:
    """Attributes that typer's parameters have had in all its versions."""
    many = parameter.multiple or parameter.nargs == -1
    flag = bool(getattr(parameter, "is_flag", False))
    return {
        "default": _plain(parameter.default or None),
        "required": parameter.required,
        "many": many,
        "flag": flag,
    }


def kinds() -> dict[str, dict[str, Any]]:
    """Of every part of the configuration that has alternatives: their names, each with its keys."""
    tables = {name: vars(alternatives)[name] for name in sorted(vars(alternatives)) if _is_table(name)}
    found = {
        name.lower(): {kind: settings_of(made) for kind, made in table.items()} for name, table in tables.items()
    }
    found["tasks"] = {name: settings_of(find_task(name)) for name in tasks.TASKS}
    return found


def _is_table(name: str) -> bool:
    return name.isupper() and name != "RECIPES" and isinstance(vars(alternatives)[name], Mapping)


def settings_of(kind: Any) -> dict[str, Any]:
    """A section's or a dataclass's keys, each with its default and, where they are listed, its choices."""
    fields = kind.model_fields if issubclass(kind, BaseModel) else {f.name: f for f in _fields(kind)}
    hints = typing.get_type_hints(kind)
    return {name: _setting(hints[name], _default(field)) for name, field in fields.items()}


def _fields(kind: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.init]


def _default(field: Any) -> Any:
    factory = field.default_factory
    absent = factory in (None, dataclasses.MISSING)
    return field.default if absent else factory()


def _setting(hint: Any, default: Any) -> dict[str, Any]:
    nested = [one for one in (hint, *typing.get_args(hint)) if _has_keys(one)]
    known = {} if isinstance(default, tuple(nested)) else {"default": _default_in(hint, default)}
    choices = {"choices": sorted(_choices(hint))} if _choices(hint) else {}
    return known | choices | ({"keys": settings_of(nested[0])} if nested else {})


def _has_keys(hint: Any) -> bool:
    """Whether values of this type are mappings with always the same keys."""
    plain = isinstance(hint, type) and hint not in alternatives.BUILDER.alternatives
    return plain and (issubclass(hint, BaseModel) or dataclasses.is_dataclass(hint))


def _default_in(hint: Any, value: Any) -> Any:
    """As a configuration says it, where it is a kind of something, and as Python does otherwise."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return alternatives.BUILDER.plain(value, hint)
    return _plain(value)


def _choices(hint: Any) -> set[str]:
    if typing.get_origin(hint) is typing.Literal:
        return set(map(str, typing.get_args(hint)))
    return set().union(*(_choices(one) for one in typing.get_args(hint)))


def _plain(value: Any) -> str:
    """A default in words that don't depend on where its class is."""
    if repr(value) in ("PydanticUndefined", repr(dataclasses.MISSING)):
        return "-"
    return re.sub(r"<(?:class|function) '?(?:[\w.]+\.)?(\w+)'?.*?>", r"\1", repr(value))


def recipes() -> dict[str, Any]:
    plain = alternatives.BUILDER.plain
    return {name: plain(recipe.algorithm, alternatives.Algorithm) for name, recipe in alternatives.RECIPES.items()}


def exit_statuses() -> dict[str, int]:
    ours = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}
    found = {name: kind.exit_status for name, kind in ours.items() if issubclass(kind, errors.RaySGDError)}
    return found | {"interrupted": _first(("raysgd_local.cli.app", "raysgd_local.cli"), "INTERRUPTED")}


def faults() -> dict[str, list[str]]:
    places = ("raysgd_local.faults.kinds", "raysgd_local.faults.language", "raysgd_local.faults")
    kinds = _first(places, "KINDS")
    real = sorted(_first(places, "REAL"))
    if isinstance(kinds, Mapping):  # one table
        of_the_run = sorted(name for name, kind in kinds.items() if kind.targets == "run")
        numbered = sorted(name for name, kind in kinds.items() if kind.amount is not None)
        return {"KINDS": sorted(kinds), "REAL": real, "UNTARGETED": of_the_run, "NUMBERED": numbered}
    sets = {name: sorted(_first(places, name)) for name in ("UNTARGETED", "NUMBERED")}
    return {"KINDS": sorted(kinds), "REAL": real, **sets}


def event_names() -> set[str]:
    """The events of `events.jsonl`: of `EventName`, or as the source says them: `record("worker_lost", …)`."""
    try:
        return {str(name) for name in _first(("raysgd_local.control.run_events",), "EventName")}
    except LookupError:
        pass
    trees = (ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py"))
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args)
    first = {(_called(call), getattr(call.args[0], "value", None)) for call in calls}
    return {
        name for called, name in first if called in ("record", "event", "RecordEvent") and isinstance(name, str)
    }


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def run_directory() -> dict[str, Any]:
    """A run directory's files, and the columns and keys in them."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "raysgd_local.cli", *SIMULATED, "--storage", folder]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        run = Path(folder) / "run"
        manifest = max(run.glob("checkpoints/*/manifest.json"))
        return {
            "files": sorted(
                {_of_any_checkpoint(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
            ),
            "rounds.csv": _columns(run / "rounds.csv"),
            "evals.csv": _columns(run / "evals.csv"),
            "result.json": _keys(json.loads((run / "result.json").read_text())),
            "events.jsonl": _event_keys((run / "events.jsonl").read_text()),
            "manifest.json": sorted(json.loads(manifest.read_text())),
        }


def _of_any_checkpoint(path: Path) -> str:
    """Return a file's path without the numbers of checkpoint and rank, which follow from simulated times."""
    return re.sub(r"^checkpoints/\d+/(rank-)?\d*", r"checkpoints/NUMBER/\1", path.as_posix())


def _columns(table: Path) -> list[str]:
    with table.open() as lines:
        return next(csv.reader(lines))


def _event_keys(text: str) -> dict[str, list[str]]:
    return {line["event"]: sorted(line) for line in map(json.loads, text.splitlines())}


def _keys(plain: Any) -> Any:
    return {key: _keys(value) for key, value in sorted(plain.items())} if isinstance(plain, Mapping) else None


def _first(modules: tuple[str, ...], name: str) -> Any:
    """What the first of the modules that has it calls `name`: it moved."""
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise LookupError(f"{name} is in none of {', '.join(modules)}")


if __name__ == "__main__":
    print(json.dumps(surface(), indent=1, ensure_ascii=False))
