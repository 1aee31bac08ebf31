"""A worker's second greenlet in virtual time, for an exchange in flight while the loop goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet


class VirtualCourier(Executor):
    """Runs one task at a time in a greenlet of its own, which waits for the network in virtual time.

    `pause` and `resume` stop and continue the worker, while it waits for the result.
    """

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause, self._resume = pause, resume
        self._strand: greenlet | None = None
        self._awaited = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        flight: Future[Any] = _Flight(self._await)

        def run() -> None:
            try:
                flight.set_result(fn(*args, **kwargs))
            except GreenletExit:
                raise
            except Exception as error:
                flight.set_exception(error)

        self._strand = greenlet(run)
        self._switch(self._strand)
        return flight

    @property
    def runs(self) -> bool:
        """Whether the task's greenlet runs now."""
        return getcurrent() is self._strand

    @property
    def waits(self) -> bool:
        """Whether the task waits for the network."""
        return self._strand is not None and not self._strand.dead

    def wait(self) -> None:
        """Wait for the network. Call it in the task."""
        parent = getcurrent().parent
        if parent is not None:
            parent.switch()

    def go_on(self) -> None:
        """Run the task on; at its end wake a worker that waits for the result. Call it in the fleet's greenlet."""
        if self._strand is not None:
            self._switch(self._strand)
        if not self.waits and self._awaited:
            self._resume()

    def die(self) -> None:
        """Unwind the task: the process has ended."""
        if self._strand is not None and not self._strand.dead:
            self._strand.parent = getcurrent()
            self._strand.throw(GreenletExit)

    def _switch(self, strand: greenlet) -> None:
        strand.parent = getcurrent()
        strand.switch()

    def _await(self) -> None:
        self._awaited = True
        try:
            while self.waits:
                self._pause()
        finally:
            self._awaited = False


class _Flight(Future[Any]):
    """A future whose `result` waits in virtual time."""

    def __init__(self, until: Callable[[], None]) -> None:
        super().__init__()
        self._until = until

    def result(self, timeout: float | None = None) -> Any:
        self._until()
        return super().result(timeout)
