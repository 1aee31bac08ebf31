"""Describe types in plain words, for messages about allowed values."""

from __future__ import annotations

import dataclasses
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel

WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    type(None): "null",
    Any: "anything",
}


REMOTE = 10**8
"""A limit of at least this only keeps numbers within what machines can count. It is told where it is exceeded."""


def describe(hint: Any) -> str:
    """Describe the values of a type.

    >>> describe(float | None)
    'a number or null'
    >>> describe(tuple[int, ...])
    'a list, each item an integer'
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return describe(args[0]) + "".join(map(bound, args[1:]))
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (Union, types.UnionType):
        return " or ".join(map(describe, args))
    if origin is dict:
        return f"a mapping, each value {describe(args[1])}"
    if origin in (tuple, list):
        return f"a list, each item {describe(args[0])}"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return "a mapping with " + ", ".join(hint.model_fields)
    if dataclasses.is_dataclass(hint):
        return "a mapping with " + ", ".join(field.name for field in dataclasses.fields(hint))
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def bound(constraint: object) -> str:
    """Describe a limit, such as ` of at least 1`; empty for other constraints.

    >>> bound(annotated_types.Ge(1))
    ' of at least 1'
    """
    match constraint:
        case annotated_types.Ge(ge=least):
            return f" of at least {least}"
        case annotated_types.Gt(gt=below):
            return f" above {below}"
        case annotated_types.Le(le=int(most)) if most < REMOTE:
            return at_most(most)
    return ""


def at_most(limit: float) -> str:
    """Describe an upper limit.

    >>> at_most(65535), at_most(10**12)
    (', at most 65535', ', at most 1,000,000,000,000')
    """
    return f", at most {limit:,}" if limit >= 100_000 else f", at most {limit}"
