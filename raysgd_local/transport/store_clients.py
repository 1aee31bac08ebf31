"""The run's store: connections, lent to those who may block on one, and what views leave in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch._C._distributed_c10d import TCPStore


def forget_views_before(store: TCPStore, prefix: str, view: int) -> None:
    """Delete what views of the run `prefix` with lower numbers left: a run of days forms many."""
    for key in store.list_keys():
        run, _, rest = key.rpartition(f"{prefix}/")
        number = rest.partition("/")[0]
        if not run and number.isdigit() and int(number) < view:
            store.delete_key(key)


class StoreClients:
    """More clients of the server that `store` is connected to.

    A process group's constructor holds its client's lock for as long as it waits, so it must not get one that
    others need. They are used again rather than made for each view: connecting looks the server's name up in
    the DNS, which was seen to take 5 s.
    """

    def __init__(self, store: TCPStore, timeout_s: float) -> None:
        self._host, self._port, self._timeout = store.host, store.port, timedelta(seconds=timeout_s)
        self._lock = threading.Lock()
        self._idle: list[TCPStore] = []

    @contextmanager
    def borrow(self) -> Iterator[TCPStore]:
        with self._lock:
            client = self._idle.pop() if self._idle else None
        client = client or TCPStore(
            self._host, self._port, is_master=False, wait_for_workers=False, timeout=self._timeout
        )
        yield client
        with self._lock:  # not after an error: it may be in the middle of an answer
            self._idle.append(client)
