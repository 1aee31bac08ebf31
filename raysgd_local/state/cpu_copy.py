"""Copy tensors to the CPU without sharing storage with the originals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_Seen = dict[tuple[Any, ...], Tensor]


def on_cpu(value: Any, seen: _Seen | None = None) -> Any:
    """Copy `value`, with every tensor in its dicts, lists and tuples cloned to the CPU. Tied tensors stay tied.

    A view's copy is only as large as the view, whereas saving the view itself would write its whole storage.
    """
    seen = {} if seen is None else seen
    if isinstance(value, Tensor):
        identity = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
        if identity not in seen or not value.numel():
            seen[identity] = value.detach().to("cpu", copy=True)
        return seen[identity]
    if isinstance(value, Mapping):
        return {key: on_cpu(item, seen) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a namedtuple takes its fields one by one
        return type(value)(*(on_cpu(item, seen) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(on_cpu(item, seen) for item in value)
    return value
