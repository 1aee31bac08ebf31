"""Ends whatever hangs in the main thread."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_TIMERS = {signal.SIGPROF: (signal.ITIMER_PROF, 1), signal.SIGALRM: (signal.ITIMER_REAL, 10)}


class Hangs(BaseException):
    """No `Exception`, so that the code under test does not catch it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `Hangs` in the `with` block after so much time on the processor, or ten times as much by the clock."""

    def ring(signum: int, frame: object) -> None:
        raise Hangs(f"no end after {seconds:g} s")

    before = {number: signal.signal(number, ring) for number in _TIMERS}
    for timer, factor in _TIMERS.values():
        signal.setitimer(timer, factor * seconds)
    try:
        yield
    finally:
        for timer, _ in _TIMERS.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
