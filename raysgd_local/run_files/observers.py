"""Deliver notices to observers: at once, or through an outbox to another process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raysgd_local.run_files.observer import RunEvent, RunObserver


@dataclass(frozen=True)
class Notice:
    """A call of one method, for every observer."""

    method: str  # of `RunObserver`
    arguments: tuple[Any, ...]

    def deliver(self, observer: RunObserver) -> None:
        getattr(observer, self.method)(*self.arguments)


class Observers:
    """Delivers each notice in line to the run's `own` observers, then to the `users`'; keeps it in `outbox`, if given.

    Drops a user's observer that raises, and calls `failed` with it and the error.
    """

    def __init__(
        self,
        own: Sequence[RunObserver],
        users: Sequence[RunObserver],
        failed: Callable[[RunObserver, Exception], None],
        outbox: Outbox | None = None,
    ) -> None:
        self._own, self._users, self._failed, self._outbox = tuple(own), list(users), failed, outbox

    def tell(self, method: str, *arguments: Any) -> None:
        notice = Notice(method, arguments)
        for observer in self._own:
            notice.deliver(observer)
        if self._outbox is not None:
            self._outbox.put(notice)
        for observer in tuple(self._users):
            try:
                notice.deliver(observer)
            except Exception as error:  # user code must not break the run
                self._users.remove(observer)
                self._failed(observer, error)


@dataclass(frozen=True)
class Delivery:
    """Consecutive notices."""

    first: int = 0  # number of the first one, in this driver's life
    notices: tuple[Notice, ...] = ()


class Outbox:
    """Keeps notices until they are received. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first = 0
        self._notices: list[Notice] = []

    def put(self, notice: Notice) -> None:
        with self._lock:
            self._notices.append(notice)

    def fetch(self, received: int) -> Delivery:
        """Return the notices from number `received` on, and drop those before."""
        with self._lock:
            del self._notices[: max(0, received - self._first)]
            self._first = max(self._first, received)
            return Delivery(self._first, tuple(self._notices))


@dataclass(frozen=True)
class Heard:
    """The newest records that observers received."""

    round: int = 0  # number of rounds
    evaluations: int = 0  # number of evaluations
    event: RunEvent | None = None  # last event

    def after(self, notice: Notice) -> Heard:
        match notice.method, notice.arguments:
            case "rounds_resolved", (rounds,):
                return replace(self, round=rounds[-1].round)
            case "evaluated", (evaluations,):
                return replace(self, evaluations=self.evaluations + len(evaluations))
            case "event_recorded", (event,):
                return replace(self, event=event)
            case "rewound", (round, evaluations, _):
                return replace(self, round=min(self.round, round), evaluations=min(self.evaluations, evaluations))
        return self
