"""One member gone fails all: gloo alone tells only those that happen to wait for it."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from raysgd_local.transport.gloo.sockets import Wires


class PeerWatch:
    """A thread that sleeps until a connection of the view ends.

    A member may be blocked on one that has not come yet, and so never notices that a third has died. So whoever
    loses a connection shuts all of its own, unless the other said goodbye before it closed: then it may be the
    first to have finished, and what is in flight among the rest must arrive. `goodbyes()` counts those.
    """

    def __init__(self, wires: Wires, goodbyes: Callable[[], int]) -> None:
        self._wires, self._goodbyes = wires, goodbyes
        self._stopped, self._stop = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._stopped, 0)
        for descriptor in wires.descriptors():
            self._poll.register(descriptor, select.POLLRDHUP)
        threading.Thread(target=self._run, daemon=True, name="view-watch").start()

    def stop(self) -> None:
        """Let the thread end. Idempotent; before the connections are closed."""
        if self._stop >= 0:
            os.close(self._stop)
            self._stop = -1

    def _run(self) -> None:
        gone = 0
        while gone <= self._counted_goodbyes(gone):
            ended = {descriptor for descriptor, _ in self._poll.poll()}
            if self._stopped in ended:
                break
            for descriptor in ended:
                self._poll.unregister(descriptor)
            gone += len(ended)
        else:
            self._wires.shut()
        os.close(self._stopped)

    def _counted_goodbyes(self, gone: int) -> int:
        if not gone:
            return 0
        try:
            return self._goodbyes()
        except RuntimeError:  # no store, no goodbye
            return -1
