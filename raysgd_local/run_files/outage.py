"""The course of a storage failure (a full disk, an unreachable object store): its begin, and the next attempt."""

from __future__ import annotations


class Outage:
    """The duration of a failure, and the next attempt: after 0.5 s, then at growing intervals up to 30 s."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._next = self._wait_s = 0.0

    @property
    def lasts(self) -> bool:
        """Whether the storage fails at present."""
        return self._since is not None

    def due(self, now: float) -> bool:
        """Whether to try again."""
        return now >= self._next

    def goes_on(self, now: float) -> None:
        """Note a failed attempt."""
        self._since = now if self._since is None else self._since
        self._wait_s = min(30.0, 2 * self._wait_s or 0.5)
        self._next = now + self._wait_s

    def ends(self, now: float) -> float:
        """End the failure, and return its duration in seconds."""
        lasted_s = 0.0 if self._since is None else now - self._since
        self._since, self._next, self._wait_s = None, 0.0, 0.0
        return lasted_s
