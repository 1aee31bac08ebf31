"""Values that a loop logs, as `events.jsonl` can hold them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch

from raysgd_local.errors import InputError

OWN_FIELDS = ("time_s", "event", "worker", "round")
"""The fields that every logged line has."""

_MOST = 1000  # elements of a tensor or a list
_DEEPEST = 10
_LONGEST = 10_000  # characters


def logged(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values in types of JSON. A field that is called as one of the line's own gets the prefix `log_`.

    Raises `InputError` for values that are too large for a line.

    >>> logged({"loss": np.float32(1.5), "event": "epoch_end", "norms": torch.tensor([1.0, 2.0])})
    {'loss': 1.5, 'norms': [1.0, 2.0], 'log_event': 'epoch_end'}
    """
    plain = {name: _plain(name, value, 0) for name, value in values.items()}
    fields = {name: value for name, value in plain.items() if name not in OWN_FIELDS}
    for name in (name for name in plain if name in OWN_FIELDS):
        fields[_free(f"log_{name}", fields)] = plain[name]
    return fields


def _free(name: str, taken: Mapping[str, Any]) -> str:
    while name in taken:
        name = f"log_{name}"
    return name


def _plain(field: str, value: Any, depth: int) -> Any:
    """Numbers as numbers, arrays and collections as lists, mappings as objects; anything else as text."""
    if depth > _DEEPEST:
        raise _too_large(field, f"{depth} levels of lists and dicts")
    if isinstance(value, Enum):
        return _plain(field, value.value, depth)
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return _from_array(field, value, depth)
    if value is None or isinstance(value, (bool, int, str)):
        return _scalar(field, value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))  # JSON has no such numbers
    if isinstance(value, Mapping):
        _check_size(field, len(value))
        return {str(key): _plain(field, item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        _check_size(field, len(value))
        return [_plain(field, item, depth + 1) for item in value]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return _scalar(field, str(value) if hasattr(value, "__fspath__") else repr(value))


def _from_array(field: str, value: Any, depth: int) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (
            value.float().numpy() if value.dtype == torch.bfloat16 else value.resolve_conj().resolve_neg().numpy()
        )
    _check_size(field, value.size)
    return _plain(field, value.tolist(), depth + 1)


def _scalar(field: str, value: Any) -> Any:
    if isinstance(value, str):
        if len(value) > _LONGEST:
            raise _too_large(field, f"{len(value)} characters")
        return str(value)
    return value if value is None or isinstance(value, bool) else _whole(field, int(value))


def _whole(field: str, value: int) -> int:
    if abs(value) >= 10**300:  # Python refuses to write very long ones
        raise _too_large(field, "an integer of more than 300 digits")
    return value


def _check_size(field: str, size: int) -> None:
    if size > _MOST:
        raise _too_large(field, f"{size} elements")


def _too_large(field: str, what: str) -> InputError:
    allowed = f"a number, a text, or at most {_MOST} elements"
    return InputError(f"ctx.log({field}=…)", what, allowed, "a larger object belongs in a file of your own")
