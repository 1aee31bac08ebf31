"""Checks for the options of methods. Each raises an `InputError` that names the field."""

from __future__ import annotations

import math

from raysgd_local.errors import InputError, nearest

LARGEST = 10**12
"""The largest count of anything: with larger ones, numbers on the way would not fit into 64 bits."""


def whole_number(field: str, value: object, at_least: int, at_most: int = LARGEST) -> None:
    """Raises InputError unless `value` is an integer from `at_least` to `at_most`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise InputError(field, value, f"an integer of at least {at_least}")
    if value > at_most:
        raise InputError(field, value, f"an integer of at least {at_least}, at most {at_most:,}")


def number(
    field: str, value: object, above: float = -math.inf, at_most: float = math.inf, below: float = math.inf
) -> None:
    """Raises InputError unless `value` is a finite number in (above, at_most], and below `below`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
        raise InputError(field, value, "a finite number")
    if not (above < value <= at_most and value < below):
        limit = f" and at most {at_most:g}" if math.isfinite(at_most) else ""
        limit += f" and below {below:g}" if math.isfinite(below) else ""
        raise InputError(field, value, f"a number above {above:g}{limit}")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


def one_of(field: str, value: object, names: tuple[str, ...]) -> None:
    """Raises InputError unless `value` is one of `names`."""
    if value not in names:
        hint = nearest(value, names) if isinstance(value, str) else ""
        raise InputError(field, value, ", ".join(names), hint)


def has_methods(field: str, value: object, methods: tuple[str, ...], allowed: str) -> None:
    """Raises InputError unless `value` is an object (not a class) with all of `methods`."""
    if isinstance(value, type):
        raise InputError(field, value, allowed, f"did you mean {value.__name__}()?")
    if not all(callable(getattr(value, method, None)) for method in methods):
        raise InputError(field, value, allowed)


def schedule(field: str, value: object) -> None:
    """Raises InputError unless `value` is a schedule."""
    has_methods(field, value, ("init", "next", "restore"), "a schedule, such as FixedPeriod(tau=16)")
