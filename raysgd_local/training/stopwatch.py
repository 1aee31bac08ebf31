"""A worker's measurements of time between two exchanges. They go into its slot; it decides nothing by them alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raysgd_local.clock import Clock


class Stopwatch:
    """Splits a worker's time into local work and everything else.

    Waiting for the controller is no local work. Evaluations and pauses are no training time at all.
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
        """Begin training time, at the first batch. Later calls do nothing."""
        if not self._started:
            self._started = True
            self._working_since = self._told_at = self.now()
            self._worked_s = 0.0

    def exchange_begins(self) -> tuple[float, float]:
        """Return the seconds of local work and of training time since the previous exchange began."""
        self.work_ends()
        compute_s, clock_s = self._worked_s, self.now() - self._told_at
        self._worked_s = 0.0
        self._told_at += clock_s
        return compute_s, clock_s

    def take_back(self, compute_s: float, clock_s: float) -> None:
        """Add what `exchange_begins` returned to the next exchange's seconds."""
        self._worked_s += compute_s
        self._told_at -= clock_s

    def work_begins(self) -> None:
        """Count local work from now on: the loop has control. Does nothing if it had control before."""
        if self._working_since is None:
            self._working_since = self.now()

    def work_ends(self) -> None:
        """Stop counting local work: this worker now waits for others."""
        if self._working_since is not None:
            self._worked_s += self.now() - self._working_since
            self._working_since = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the `with` block as waiting for others, for `waits_s`."""
        self._waiting_since = self.now()
        try:
            yield
        finally:
            self._waiting_since = None

    @property
    def waits_s(self) -> float:
        """How long this worker has been waiting for others; 0 while it does not wait. For any thread."""
        since = self._waiting_since
        return 0.0 if since is None else self.now() - since

    def exclude(self, since: float) -> None:
        """Take the time since `since` out of training time."""
        self.exclude_s(self.now() - since)

    def exclude_s(self, seconds: float) -> None:
        """Take so many seconds out of training time."""
        self._told_at += seconds
