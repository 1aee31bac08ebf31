"""The run's store: a pool of connections for callers that may block, and the removal of old views' keys."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch._C._distributed_c10d import TCPStore


def forget_views_before(store: TCPStore, prefix: str, view: int) -> None:
    """Delete the keys of the run `prefix`'s views below number `view`: a run of days forms many."""
    for key in store.list_keys():
        run, _, rest = key.rpartition(f"{prefix}/")
        number = rest.partition("/")[0]
        if not run and number.isdigit() and int(number) < view:
            store.delete_key(key)


class StoreClients:
    """A pool of further clients of the server that `store` is connected to.

    A process group's constructor holds its client's lock while it waits, so it must not get a client that others
    need. Clients are reused by later views, because connecting looks the server's name up in the DNS, which was
    seen to take 5 s.
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
        with self._lock:  # skipped after an error: the client may be in the middle of an answer
            self._idle.append(client)
