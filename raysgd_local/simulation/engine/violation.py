"""The exception for a broken invariant."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    pass


class Violated(Exception):  # noqa: N818 - what happened, not what went wrong with us
    """An invariant does not hold."""


def violated(invariant: str, what: str) -> NoReturn:
    """Raise `Violated`."""
    raise Violated(f"{invariant}: {what}")
