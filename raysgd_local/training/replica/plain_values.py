"""State that can be read back without running code: tensors, NumPy's arrays and numbers, and plain values."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from raysgd_local.errors import InputError

_PLAIN = (torch.Tensor, torch.nn.Parameter, bool, int, float, complex, str, bytes, type(None))

# What NumPy's pickles call. None of it runs foreign code, and object arrays are unpickled under the same rules.
_NUMPY: list[Any] = [np.ndarray, np.dtype, np.generic]
_NUMPY += [np._core.multiarray._reconstruct, np._core.multiarray.scalar]  # type: ignore[attr-defined]
_NUMPY += [kind for kind in vars(np.dtypes).values() if isinstance(kind, type)]
torch.serialization.add_safe_globals(_NUMPY)


def to_bytes(state: dict[str, Any]) -> bytes:
    """Serialize the state with `torch.save`."""
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def from_bytes(content: bytes) -> dict[str, Any]:
    """Load the output of `to_bytes`. Unpickles only tensors, NumPy's arrays and plain values, never code."""
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def check_plain(value: Any, path: str) -> None:
    """Raise `InputError`, naming the place under `path`, for state that could be written but not read back."""
    kind = type(value)
    if kind in _PLAIN:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_plain(key, f"{path}: key {key!r}")
            check_plain(item, f"{path}[{key!r}]")
    elif kind in (list, tuple):
        for i, item in enumerate(value):
            check_plain(item, f"{path}[{i}]")
    else:
        _check_leaf(value, path)


def _check_leaf(value: Any, path: str) -> None:
    """Try it: torch decides which further types it reads back."""
    try:
        from_bytes(to_bytes({"value": value}))
    except Exception as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        allowed = "a state_dict of tensors, NumPy arrays, numbers, strings, lists and dicts"
        hint = "other objects can't be read back from a checkpoint without running code"
        raise InputError(path, kind, allowed, hint) from error
