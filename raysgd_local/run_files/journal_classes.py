"""The classes that a journal may name. Reading a journal imports nothing: it may come from somebody else.

These are the package's own records, and users' schedules, triggers, averagings and placements in modules that are
imported already (`raysgd-local replay --import MODULE` imports one).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from types import MappingProxyType

from raysgd_local.algorithms.averaging import AVERAGINGS
from raysgd_local.algorithms.compression import COMPRESSIONS
from raysgd_local.algorithms.outer import OUTERS
from raysgd_local.algorithms.placement import PLACEMENTS
from raysgd_local.algorithms.schedules import SCHEDULES, TRIGGERS
from raysgd_local.algorithms.weights import WEIGHTS
from raysgd_local.control.controller.settings import CheckpointPolicy, Limit, Settings, Timeouts
from raysgd_local.control.replicated.balancing import Balance
from raysgd_local.control.replicated.program import Program
from raysgd_local.errors import InputError
from raysgd_local.import_path import class_path
from raysgd_local.run_files.old_class_paths import todays

_CHOICES: tuple[Mapping[str, type], ...] = (
    SCHEDULES,
    TRIGGERS,
    AVERAGINGS,
    COMPRESSIONS,
    OUTERS,
    PLACEMENTS,
    WEIGHTS,
)
_RECORDS = (Settings, Timeouts, Limit, CheckpointPolicy, Program, Balance)

OWN: Mapping[str, type] = MappingProxyType(
    {class_path(kind): kind for kind in (*_RECORDS, *(kind for table in _CHOICES for kind in table.values()))}
)
"""This package's classes by their paths."""

_METHODS = (("init", "next", "restore"), ("reached",), ("coupling",), ("copies_among", "order"))
"""Methods of schedules, triggers, averagings and placements: users' classes that settings may hold."""


def find_record(path: object) -> type:
    """Return the class with this path. Raises `InputError` (field `journal`) for any that a journal may not name.

    >>> find_record("raysgd_local.control.settings:Limit").__name__
    'Limit'
    """
    if not isinstance(path, str):
        raise InputError("journal", path, "module:Class")
    found = OWN.get(todays(path)) or _imported_already(path)
    if found is None:
        allowed = (
            "this package's records, and users' schedules, averagings and placements that are imported already"
        )
        raise InputError("journal", path, allowed, "if you trust that module: raysgd-local replay --import MODULE")
    return found


def _imported_already(path: str) -> type | None:
    module, _, name = path.partition(":")
    found = vars(sys.modules[module]).get(name) if module in sys.modules else None
    fits = isinstance(found, type) and is_dataclass(found) and class_path(found) == path and _is_choice(found)
    return found if fits else None


def _is_choice(kind: type) -> bool:
    return any(all(callable(getattr(kind, method, None)) for method in methods) for methods in _METHODS)
