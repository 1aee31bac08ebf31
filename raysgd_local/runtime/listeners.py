"""Run the users' observers in the process of `fit()`.

They run there and not in the driver's process, so that they need not be picklable, outlive a driver that dies (each
round is passed on once), and can't take the interpreter from the driver while workers wait for it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from raysgd_local.console import say
from raysgd_local.run_files.observer import RunEnd, RunObserver, RunStart
from raysgd_local.run_files.observers import Delivery, Heard, Notice

_DRAIN_S = 10.0


@dataclass(frozen=True)
class Failure:
    """An observer raised, and was dropped."""

    observer: str  # name of its class
    reason: str


class Listeners:
    """Passes the drivers' notices to observers, each on a thread of its own. Only `close` waits for them."""

    def __init__(self, observers: Sequence[RunObserver], start: RunStart) -> None:
        self._mailboxes = [_Mailbox(observer) for observer in observers]
        self._untold: list[Failure] = []
        self._ended = False
        self.heard = Heard(start.round, start.evaluations)
        self.received = 0  # number of notices received from the present driver
        self._put(Notice("run_started", (start,)))

    def take(self, delivery: Delivery) -> None:
        """Pass on the notices that were not received before."""
        for notice in delivery.notices[max(0, self.received - delivery.first) :]:
            self.received += 1
            self._put(notice)

    def driver_died(self) -> None:
        """Count from 0 again: the next driver numbers its notices anew."""
        self.received = 0

    def failures(self) -> tuple[Failure, ...]:
        """Return the failures that were not returned before."""
        return tuple(box.failures.get() for box in self._mailboxes if not box.failures.empty())

    def close(self, reason: str = "the driver is gone", limit_s: float = _DRAIN_S) -> None:
        """Pass on the run's end if no driver did, and wait for the observers, at most `limit_s`."""
        if not self._ended:
            self._put(Notice("run_ended", (RunEnd("lost", reason),)))
        until_s = time.monotonic() + limit_s
        for box in self._mailboxes:
            if not box.close(until_s - time.monotonic()):
                _warn(f"observer {box.name} did not receive everything: it took longer than {limit_s:g} s")
        for failure in self.failures():
            _warn(f"observer {failure.observer} was dropped: {failure.reason}")

    def _put(self, notice: Notice) -> None:
        self.heard = self.heard.after(notice)
        self._ended = self._ended or notice.method == "run_ended"
        for box in self._mailboxes:
            box.put(notice)


class _Mailbox:
    """Delivers to one observer, in order, until it raises."""

    def __init__(self, observer: RunObserver) -> None:
        self.name = type(observer).__name__
        self.failures: queue.SimpleQueue[Failure] = queue.SimpleQueue()
        self._observer = observer
        self._notices: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._deliver, daemon=True, name=f"observer {self.name}")
        self._thread.start()

    def put(self, notice: Notice) -> None:
        if self._thread.is_alive():
            self._notices.put(notice)

    def close(self, limit_s: float) -> bool:
        """Wait at most `limit_s`. Return whether all was delivered, or the observer was dropped."""
        self._notices.put(None)
        self._thread.join(max(0.0, limit_s))
        return not self._thread.is_alive()

    def _deliver(self) -> None:
        while (notice := self._notices.get()) is not None:
            try:
                notice.deliver(self._observer)
            except BaseException as error:  # a user's code, SystemExit included: the run must not suffer from it
                self.failures.put(Failure(self.name, f"{type(error).__name__}: {error}"))
                return


def _warn(message: str) -> None:
    say(f"warning: {message}")
