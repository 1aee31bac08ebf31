"""Ctrl-C in a simulated run: ask the run to end, so that its directory is complete."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible(interrupt: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C call `interrupt`, and the second raise `KeyboardInterrupt`, within the `with` block.

    Only the main thread can handle signals: in another thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("stopping at the next boundary; once more to stop at once", file=sys.stderr)
        interrupt()

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
