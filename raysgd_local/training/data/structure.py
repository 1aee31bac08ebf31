"""The structure of a batch: mappings, lists, tuples, named tuples and dataclasses of parts. Needs no torch."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any


def parts_of(batch: Any) -> Iterable[Any] | None:
    """Return the parts of a batch; None if it has none."""
    if isinstance(batch, Mapping):
        return batch.values()
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return [getattr(batch, field.name) for field in dataclasses.fields(batch) if hasattr(batch, field.name)]
    return batch if isinstance(batch, (list, tuple)) else None


def rebuilt(batch: Any, change: Callable[[Any], Any]) -> Any:
    """Return a batch of the same structure with each part replaced by `change(part)`; what has no parts as it is."""
    if isinstance(batch, Mapping):
        return _mapping(batch, {key: change(value) for key, value in batch.items()})
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(change, batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(map(change, batch))
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return _dataclass(batch, change)
    return batch


def _mapping(batch: Mapping[Any, Any], changed: dict[Any, Any]) -> Any:
    if type(batch) is dict:
        return changed
    if isinstance(batch, MutableMapping):  # by a copy: it may be made in another way than from a dict
        twin = copy.copy(batch)
        twin.update(changed)
        return twin
    return type(batch)(changed)  # type: ignore[call-arg]


def _dataclass(batch: Any, change: Callable[[Any], Any]) -> Any:
    """By a copy, so that `__init__` and `__post_init__` don't run again; also if it is frozen."""
    twin = copy.copy(batch)
    for field in dataclasses.fields(batch):
        if hasattr(batch, field.name):
            object.__setattr__(twin, field.name, change(getattr(batch, field.name)))
    return twin
