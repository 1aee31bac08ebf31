"""What must hold whatever happens: asserted after every event by one who sees everything."""

from __future__ import annotations

from typing import NoReturn


class Violated(Exception):  # noqa: N818 - what happened, not what went wrong with us
    """An invariant does not hold."""


def violated(invariant: str, what: str) -> NoReturn:
    raise Violated(f"{invariant}: {what}")
