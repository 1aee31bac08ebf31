"""Make all members of a view fail when one is gone: gloo by itself fails only those that wait for that one."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from raysgd_local.transport.gloo.sockets import Wires


class PeerWatch:
    """A thread that sleeps until a connection of the view ends, then shuts this member's other connections down.

    A member that waits for a late peer would not notice that a third one died. If each member that loses a
    connection shuts all of its own, the failure reaches everyone. The exception is a peer that said goodbye before
    it closed: it has only finished first, and data in flight among the rest must still arrive. `goodbyes()` counts
    those.
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
        """End the thread. Idempotent. Call it before the connections are closed."""
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
        except RuntimeError:  # the store is gone: assume that the peers failed
            return -1
