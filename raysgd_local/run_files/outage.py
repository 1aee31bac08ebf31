"""A disk that is full, or storage that is away: since when, and when to try again."""

from __future__ import annotations


class Outage:
    """For how long it has been, and when to try again: after 0.5 s, later and later up to 30 s."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._next = self._wait_s = 0.0

    @property
    def lasts(self) -> bool:
        return self._since is not None

    def due(self, now: float) -> bool:
        return now >= self._next

    def goes_on(self, now: float) -> None:
        self._since = now if self._since is None else self._since
        self._wait_s = min(30.0, 2 * self._wait_s or 0.5)
        self._next = now + self._wait_s

    def ends(self, now: float) -> float:
        """How long it was."""
        lasted_s = 0.0 if self._since is None else now - self._since
        self._since, self._next, self._wait_s = None, 0.0, 0.0
        return lasted_s
