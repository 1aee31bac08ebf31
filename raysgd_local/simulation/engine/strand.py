"""A simulated process as a greenlet: straight-line code that waits, though the fleet runs one event at a time."""

from __future__ import annotations

from collections.abc import Callable

from greenlet import GreenletExit, getcurrent, greenlet


class Strand:
    """Runs `body` in a greenlet until it waits; then the fleet goes on. Create it in the fleet's greenlet."""

    def __init__(self, body: Callable[[], None]) -> None:
        self._fleet = getcurrent()
        self._own = greenlet(body, parent=self._fleet)  # an exception of `body` is raised in the fleet

    def go_on(self) -> None:
        """Run `body` on, until its next wait or its end. Call it in the fleet's greenlet."""
        self._own.switch()

    def wait(self) -> None:
        """Wait until the fleet calls `go_on`. Call it in `body`."""
        self._fleet.switch()

    def kill(self) -> None:
        """Unwind `body`; otherwise its greenlet is never freed. Call it in the fleet's greenlet."""
        if not self._own.dead:
            self._own.throw(GreenletExit)
