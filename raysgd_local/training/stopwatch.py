"""What a worker measures between two exchanges, by its own clock: told, never decided upon alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raysgd_local.clock import Clock


class Stopwatch:
    """Splits a worker's time into local work and everything else.

    Time spent waiting for the controller, or evaluating, is not computing; evaluating and pausing are not training
    time at all.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told_at = clock.now()
        self._working_since: float | None = None
        self._worked_s = 0.0
        self._started = False
        self._waiting_since: float | None = None

    def now(self) -> float:
        return self._clock.now()

    def start(self) -> None:
        """Training time begins with the first batch."""
        if not self._started:
            self._started = True
            self._working_since = self._told_at = self.now()
            self._worked_s = 0.0

    def exchange_begins(self) -> tuple[float, float]:
        """Seconds of local work, and of training time, since the exchange before began."""
        self.work_ends()
        compute_s, clock_s = self._worked_s, self.now() - self._told_at
        self._worked_s = 0.0
        self._told_at += clock_s
        return compute_s, clock_s

    def work_begins(self) -> None:
        """The loop has control; in the middle of a round it had it all along."""
        if self._working_since is None:
            self._working_since = self.now()

    def work_ends(self) -> None:
        """What comes now is waiting for others."""
        if self._working_since is not None:
            self._worked_s += self.now() - self._working_since
            self._working_since = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Meanwhile it depends on others when this worker goes on."""
        self._waiting_since = self.now()
        try:
            yield
        finally:
            self._waiting_since = None

    @property
    def waits_s(self) -> float:
        """For how long it has been waiting for others, 0 while it does not; from any thread."""
        since = self._waiting_since
        return 0.0 if since is None else self.now() - since

    def exclude(self, since: float) -> None:
        """What passed since `since` was not training time."""
        self.exclude_s(self.now() - since)

    def exclude_s(self, seconds: float) -> None:
        self._told_at += seconds
