"""A simulated process as a greenlet: straight-line code that waits, though the fleet runs one event at a time."""

from __future__ import annotations

from collections.abc import Callable

from greenlet import GreenletExit, getcurrent, greenlet


class Strand:
    """Runs `body` until it waits, and lets the fleet go on then. Made in the fleet's greenlet."""

    def __init__(self, body: Callable[[], None]) -> None:
        self._fleet = getcurrent()
        self._own = greenlet(body, parent=self._fleet)  # an exception of `body` is raised in the fleet

    def go_on(self) -> None:
        """In the fleet's greenlet: run on, until the next wait or the end."""
        self._own.switch()

    def wait(self) -> None:
        """In the strand: until the fleet lets it go on."""
        self._fleet.switch()

    def kill(self) -> None:
        """In the fleet's greenlet: unwind it. One that is not killed is never freed."""
        if not self._own.dead:
            self._own.throw(GreenletExit)
