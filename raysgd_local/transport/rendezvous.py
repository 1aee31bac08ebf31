"""The members of a view find each other through the store. Every wait can be interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from torch._C._distributed_c10d import PrefixStore, Store

from raysgd_local.errors import TransportError

T = TypeVar("T")

_FASTEST_POLL_S, _SLOWEST_POLL_S = 0.001, 0.02


class Rendezvous:
    """One attempt to form a view. `prefix` is its name in the store; `cut()` returns whether it was called off.

    A member that gives up says so in the store, so that the others give up too. A view's number is used only once.
    """

    def __init__(
        self, store: Store, prefix: str, rank: int, world_size: int, timeout_s: float, cut: Callable[[], bool]
    ) -> None:
        self.rank, self.world_size, self.timeout_s = rank, world_size, timeout_s
        self.prefix, self.store, self._cut = prefix, PrefixStore(prefix, store), cut
        self._deadline_s = time.monotonic() + timeout_s

    def meet(self, name: str, message: str) -> list[str]:
        """Publish `message` under `name`, wait for all members' messages, and return them in rank order.

        Polls, because a blocking wait for a missing member can't be interrupted. Raises `TransportError` if the
        view is cut, another member fails, or the time-out expires.
        """
        self._go_on_or_raise(f"before {name}")
        self.store.set(f"{name}/{self.rank}", message)
        keys = [f"{name}/{rank}" for rank in range(self.world_size)]
        pause_s = _FASTEST_POLL_S
        while not self.store.check(keys):
            self._go_on_or_raise(f"waiting for {name} of others")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _SLOWEST_POLL_S)
        return [self.store.get(key).decode() for key in keys]

    def build(self, make: Callable[[], T], dispose: Callable[[T], None]) -> T:
        """Run `make` in a thread, since it may block until its own time-out, and return its result.

        If the view is called off meanwhile, this raises `TransportError` and abandons the thread. If that still
        produces a result later, `dispose` gets it.
        """
        work = _Work(make, dispose)
        threading.Thread(target=work.run, daemon=True, name="view-formation").start()
        while not work.done.wait(_SLOWEST_POLL_S):
            try:
                self._go_on_or_raise("connecting")
            except TransportError:
                work.abandon()
                raise
        return work.result()

    def fail(self, why: str) -> None:
        """Tell the other members that this attempt failed."""
        self.store.set("failed", f"rank {self.rank}: {why}")

    def _go_on_or_raise(self, doing: str) -> None:
        if self._cut():
            raise TransportError("the view was cut while it was being formed")
        if self.store.check(["failed"]):
            raise TransportError(f"forming the view failed at {self.store.get('failed').decode()}")
        if time.monotonic() > self._deadline_s:
            raise TransportError(f"forming the view took more than {self.timeout_s} s ({doing})")


class _Work(Generic[T]):
    """A call in another thread that can be abandoned."""

    def __init__(self, make: Callable[[], T], dispose: Callable[[T], None]) -> None:
        self.done = threading.Event()
        self._make, self._dispose = make, dispose
        self._lock = threading.Lock()
        self._made: list[T] = []
        self._error: Exception | None = None
        self._abandoned = False

    def run(self) -> None:
        try:
            made = self._make()
        except Exception as error:
            self._error = error
        else:
            with self._lock:
                if self._abandoned:
                    self._dispose(made)
                else:
                    self._made.append(made)
        self.done.set()

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            for made in self._made:
                self._dispose(made)
            self._made.clear()

    def result(self) -> T:
        if self._error is not None:
            raise TransportError(f"connecting to the other members failed: {self._error}") from self._error
        return self._made.pop()
