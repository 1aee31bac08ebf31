"""Signals in a simulated run: ask the run to end, so that its directory is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raysgd_local import signals


@contextmanager
def interruptible(interrupt: Callable[[], None]) -> Iterator[signals.StopRequest]:
    """Let the first signal call `interrupt` within the `with` block. The second ends the process, or a script's run."""

    def first() -> None:
        signals.write("stopping at the next boundary; once more to stop at once\n")
        interrupt()

    with signals.heeded(first) as request:
        if request.asked:
            interrupt()
        yield request
