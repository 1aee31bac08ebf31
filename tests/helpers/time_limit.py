"""Ends whatever hangs in the main thread."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Hangs(BaseException):
    """No `Exception`, so that the code under test does not catch it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `Hangs` in the `with` block after this time."""

    def ring(signum: int, frame: object) -> None:
        raise Hangs(f"no end after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
