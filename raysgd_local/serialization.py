"""Convert frozen records to plain (JSON) values, and back."""

from __future__ import annotations

import dataclasses
import functools
import numbers
import reprlib
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

    Raises `TypeError` or `ValueError` where the plain form has another type: it may be of a damaged file.

    >>> from raysgd_local.records import EvalRow
    >>> from_plain(EvalRow, to_plain(EvalRow(1, 2, 3, 0, 1.5, {"loss": 0.5})))
    EvalRow(round=1, steps=2, samples=3, epoch=0, elapsed_s=1.5, metrics={'loss': 0.5})
    """
    return typing.cast(T, _build(kind, plain))


def _build(kind: Any, plain: Any) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_record(kind, plain)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if plain is None else _build(_arm(args, plain), plain)
    if origin is tuple:
        items = _of(list, plain, kind)
        item_kinds = [args[0]] * len(items) if args[1:] == (...,) else args
        return tuple(_build(k, item) for k, item in zip(item_kinds, items, strict=True))
    if origin is dict:
        return {_build(args[0], key): _build(args[1], item) for key, item in _of(dict, plain, kind).items()}
    if origin is typing.Literal and plain not in args:
        raise ValueError(f"{plain!r} is none of {args}")
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(plain)
    return _build_leaf(kind, plain)


def _arm(kinds: tuple[Any, ...], plain: Any) -> Any:
    """Return the kind of a union that the value is of: of records, the one that has all its fields."""
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if isinstance(plain, dict) and len(kinds) > 1 and all(map(dataclasses.is_dataclass, kinds)):
        return next((kind for kind in kinds if plain.keys() <= _hints(kind).keys()), kinds[0])
    return kinds[0]


def _build_record(kind: type, plain: Any) -> Any:
    hints = _hints(kind)
    values = _of(dict, plain, kind)
    if unknown := values.keys() - hints.keys():
        raise TypeError(f"{kind.__name__} has no {', '.join(sorted(map(str, unknown)))}")
    return kind(**{name: _build(hints[name], item) for name, item in values.items()})


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _build_leaf(kind: Any, plain: Any) -> Any:
    if kind is bytes:
        return bytes.fromhex(_of(str, plain, kind))
    if kind in (int, float):
        return _build_number(kind, plain)
    return _of(kind, plain, kind) if kind in (str, bool) else plain


def _build_number(kind: type[int] | type[float], plain: Any) -> int | float:
    if isinstance(plain, bool) or not isinstance(plain, numbers.Real):
        raise TypeError(f"{_short(plain)} is no {kind.__name__}")
    if kind is int and not isinstance(plain, numbers.Integral) and not float(plain).is_integer():
        raise ValueError(f"{plain!r} is no whole number")
    try:
        return kind(typing.cast(float, plain))
    except OverflowError:
        raise ValueError(f"{_short(plain)} is too large") from None


def _of(wanted: type, plain: Any, kind: Any) -> Any:
    if not isinstance(plain, wanted):
        raise TypeError(f"{_short(plain)} is no {getattr(kind, '__name__', kind)}")
    return plain


def _short(plain: Any) -> str:
    return reprlib.repr(plain)
