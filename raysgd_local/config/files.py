"""Read configuration text (YAML files and `key=value` settings) as nested mappings."""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from raysgd_local.errors import InputError, nearest, shown
from raysgd_local.run_files.paths import expanded

ALTERNATIVES = re.compile(r"(^|\.)kind$|^task\.name$|^task\.optimizer\.name$")
"""Matches settings that choose a class, and so determine which settings exist beside them."""

MOST_NESTED = 50
_TOO_DEEP = re.compile(
    rf"(?:[\[{{]\s*){{{MOST_NESTED + 1}}}"
)  # PyYAML takes time in proportion to the depth's square
_MOST_VALUES = 1_000_000
_LONGEST_FILE = 2_000_000  # characters


class _Loader(yaml.SafeLoader):
    """A YAML loader that reads 1e-3 as a number, and refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _refused("a key has to be text", key_node)
            if key_node.value in seen:
                raise _refused(f"{key_node.value!r} is given twice", key_node)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _refused(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read(path: str | Path, field: str = "config") -> dict[str, Any]:
    """Read the mapping in a YAML file. Raises `InputError` (of `field`) if it is missing, or not a YAML mapping."""
    try:
        with open(expanded(str(path), field), encoding="utf-8") as stream:
            text = stream.read(_LONGEST_FILE + 1)
    except FileNotFoundError as error:
        raise InputError(field, str(path), "an existing file", _file_beside(Path(path))) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(field, str(path), "a text file that can be read", str(error)) from error
    if len(text) > _LONGEST_FILE:
        raise InputError(field, str(path), f"a file of at most {_LONGEST_FILE:,} characters")
    return parse(text, str(path), field)


def parse(text: str, source: str = "text", field: str = "config") -> dict[str, Any]:
    """Parse a YAML mapping; an empty text is an empty mapping.

    >>> parse("task: {name: digits, optimizer: {lr: 1e-3}}")
    {'task': {'name': 'digits', 'optimizer': {'lr': 0.001}}}
    """
    found = _yaml(text, field, source)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(field, source, "a YAML mapping", f"it holds {type(found).__name__}")
    return found


def changed(tree: dict[str, Any], pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return a copy of the tree with each dotted key set to its value.

    If a setting chooses another class (a `kind`, a task's name), the old class's settings beside it are removed. So
    these are set first, whatever the order of `pairs`.

    >>> changed({"schedule": {"kind": "fixed", "tau": 8}}, [("schedule.tau0", 4), ("schedule.kind", "adacomm")])
    {'schedule': {'kind': 'adacomm', 'tau0': 4}}
    """
    tree = copy.deepcopy(tree)
    for key, value in sorted(pairs, key=lambda pair: (not ALTERNATIVES.search(pair[0]), pair[0].count("."))):
        *parents, last = key.split(".")
        inner = _descend(tree, parents)
        if ALTERNATIVES.search(key) and inner.get(last, value) != value:
            inner.clear()
        inner[last] = copy.deepcopy(value)
    return tree


def _descend(tree: dict[str, Any], parents: list[str]) -> dict[str, Any]:
    inner: Any = tree
    for depth, parent in enumerate(parents):
        if inner.get(parent) is None:
            inner[parent] = {}
        inner = inner[parent]
        if not isinstance(inner, dict):
            path = ".".join(parents[: depth + 1])
            raise InputError(
                "--set", path, "the path of a setting", f"{path} is {shown(inner)}, with nothing in it"
            )
    found: dict[str, Any] = inner
    return found


def pair(setting: str) -> tuple[str, Any]:
    """Split `key=value` into the key and the value, which is read as YAML."""
    key, equals, value = setting.partition("=")
    if not equals or not all(key.split(".")) or key.count(".") >= MOST_NESTED:
        raise InputError("--set", setting, "key=value, such as task.epochs=5")
    return key.strip(), _yaml(value, "--set", setting)


def check_size(value: Any, field: str, source: str) -> None:
    """Raise `InputError` for values nested too deep, or in themselves, and for too many. Aliases are counted each time.

    >>> check_size({"a": [1, {"b": 2}]}, "config", "text")
    """
    count, level = 0, [value]
    for _ in range(MOST_NESTED):
        deeper: list[Any] = []
        for one in level:
            deeper += one.values() if isinstance(one, dict) else one if isinstance(one, (list, tuple)) else ()
            if count + len(deeper) > _MOST_VALUES:
                raise InputError(field, source, f"at most {_MOST_VALUES:,} values")
        count, level = count + len(deeper), deeper
        if not level:
            return
    raise InputError(field, source, f"values that are nested at most {MOST_NESTED} deep")


def _yaml(text: str, field: str, source: str) -> Any:
    found = _loaded(text, field, source)
    check_size(found, field, source)
    return found


def _loaded(text: str, field: str, source: str) -> Any:
    if _TOO_DEEP.search(text):
        raise InputError(field, source, f"values that are nested at most {MOST_NESTED} deep")
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise InputError(field, source, f"values that are nested at most {MOST_NESTED} deep") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(field, source, "valid YAML", f"{where}{error.problem}") from error
    except Exception as error:  # PyYAML's constructors raise anything for a tagged value, such as `!!int x`
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(field, source, "valid YAML", why) from error


def _file_beside(path: Path) -> str:
    try:
        return nearest(path.name, [other.name for other in path.parent.iterdir()])
    except OSError:
        return ""
