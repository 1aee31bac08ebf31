"""Delivery to observers: at once, or later and elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raysgd_local.run_files.observer import RunEvent, RunObserver


@dataclass(frozen=True)
class Notice:
    """One call of one method of every observer."""

    method: str
    arguments: tuple[Any, ...]

    def deliver(self, observer: RunObserver) -> None:
        getattr(observer, self.method)(*self.arguments)


class Observers:
    """Delivers each notice to the run's `own` observers, then to `users'`, in line; keeps it in `outbox`, if given.

    Drops a user's observer that raises, and calls `failed` with it and the error, once.
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
            except Exception as error:  # a user's code: the run must not suffer from it
                self._users.remove(observer)
                self._failed(observer, error)


@dataclass(frozen=True)
class Delivery:
    """Consecutive notices; `first` is the number of the first one in this driver's life."""

    first: int = 0
    notices: tuple[Notice, ...] = ()


class Outbox:
    """Keeps notices until they are fetched. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first = 0
        self._notices: list[Notice] = []

    def put(self, notice: Notice) -> None:
        with self._lock:
            self._notices.append(notice)

    def fetch(self, received: int) -> Delivery:
        """The notices from number `received` on; those before it are dropped."""
        with self._lock:
            del self._notices[: max(0, received - self._first)]
            self._first = max(self._first, received)
            return Delivery(self._first, tuple(self._notices))


@dataclass(frozen=True)
class Heard:
    """The newest that observers were told: of rounds and evaluations their numbers, of events the last one."""

    round: int = 0
    evaluations: int = 0
    event: RunEvent | None = None

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
