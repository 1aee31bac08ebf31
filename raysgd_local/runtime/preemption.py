"""Notices of termination: SIGTERM to a worker's process, and nodes that Ray reports as draining."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Callable
from types import FrameType

import ray

from raysgd_local.control.controller.events import NodesDraining

_LOOK_EVERY_S = 1.0


def on_termination(leave: Callable[[], None]) -> None:
    """Call `leave` in a thread at the first SIGTERM. The next one ends the process.

    Call this in the process's main thread. The handler itself does very little, because it may interrupt anything.
    """
    told: queue.SimpleQueue[int] = queue.SimpleQueue()

    def handle(number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        told.put(number)

    def wait() -> None:
        told.get()
        leave()

    signal.signal(signal.SIGTERM, handle)
    hear()
    threading.Thread(target=wait, daemon=True, name="termination").start()


def hear() -> None:
    """Let SIGTERM reach this thread: where `fit` started Ray, it is blocked in Ray's processes."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


class DrainWatch:
    """Posts the list of draining nodes whenever it changes, until `stop`."""

    def __init__(self, post: Callable[[NodesDraining], None]) -> None:
        self._post = post
        self._stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="watch-draining").start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        known: tuple[str, ...] = ()
        while not self._stopped.wait(_LOOK_EVERY_S):
            with contextlib.suppress(Exception):  # Ray's head may be away for a while
                nodes = draining_nodes()
                if nodes != known:
                    self._post(NodesDraining(nodes))
                    known = nodes


def draining_nodes() -> tuple[str, ...]:
    """Return the ids of the nodes that Ray is draining. `ray.train` reads them the same way; there is no public one."""
    return tuple(sorted(ray._private.state.state.get_draining_nodes()))
