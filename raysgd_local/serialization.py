"""Convert frozen records to plain (JSON) values, and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Convert dataclasses, tuples, dicts, enums and bytes to values that JSON can hold. `from_plain` is the inverse."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    return value.value if isinstance(value, Enum) else value


def from_plain(kind: type[T], plain: Any) -> T:
    """Rebuild the value of type `kind` from its plain form.

    >>> from raysgd_local.records import EvalRow
    >>> from_plain(EvalRow, to_plain(EvalRow(1, 2, 3, 0, 1.5, {"loss": 0.5})))
    EvalRow(round=1, steps=2, samples=3, epoch=0, elapsed_s=1.5, metrics={'loss': 0.5})
    """
    return typing.cast(T, _build(kind, plain))


def _build(kind: Any, plain: Any) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _build(hints[name], item) for name, item in plain.items()})
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if plain is None else _build(next(a for a in args if a is not type(None)), plain)
    if origin is tuple:
        item_kinds = [args[0]] * len(plain) if args[1:] == (...,) else args
        return tuple(_build(k, item) for k, item in zip(item_kinds, plain, strict=True))
    if origin is dict:
        return {_build(args[0], key): _build(args[1], item) for key, item in plain.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(plain)
    if kind is bytes:
        return bytes.fromhex(plain)
    return kind(plain) if kind in (int, float) and plain is not None else plain
