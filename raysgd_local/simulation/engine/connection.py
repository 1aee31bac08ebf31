"""One member's side of the network: at most one view is joined, at most one collective in flight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raysgd_local.simulation.engine.network import Call, Combine, SimulatedNetwork

Later = Callable[[float, Callable[[], None]], None]


class Connection:
    """One member's connection. It calls `settled` at the end of each collective, with the reason of a failure.

    `later` runs a function after a delay in seconds.
    """

    def __init__(
        self,
        name: str,
        network: SimulatedNetwork,
        later: Later,
        timeout_s: float,
        settled: Callable[[Call, str], None],
    ) -> None:
        self.name = name
        self._network, self._later, self._timeout_s, self._tell = network, later, timeout_s, settled
        self.call: Call | None = None
        self._view: int | None = None
        self._peers: tuple[str, ...] = ()
        self._cuts: set[int] = set()
        self._begun = 0

    def join(self, view: int, peers: tuple[str, ...]) -> bool:
        """Leave the previous view and join this one. Return False if this one was cut already."""
        self.leave()
        if view in self._cuts:
            return False
        self._view, self._peers = view, peers
        return True

    def cut(self, view: int) -> None:
        """Leave this view, or never join it."""
        self._cuts.add(view)
        if self._view == view:
            self.leave()

    def leave(self) -> None:
        if self._view is not None:
            view, self._view = self._view, None
            self._network.leave(self.name, view, self._peers)

    def begin(self, label: str, combine: Combine, given: Any, source: int | None, size_bytes: int) -> bool:
        """Take part in the view's next collective. Return False if the view was left."""
        if self._view is None:
            return False
        call = self.call = Call(self._view, 0, label, self, given, source, size_bytes)
        begun = self._begun = self._begun + 1  # the timer outlives the call: it must not hold the call's data
        self._later(self._timeout_s, lambda: self._time_out(begun))
        self._network.call(call, self._peers, combine)
        return True

    def drop(self) -> None:
        """Leave the view, and forget the collective in flight."""
        self.leave()
        self.call = None

    def settle(self, call: Call, delay_s: float, failure: str) -> None:
        """End the call after a delay, as complete or as failed. A later call of this method overrides it."""
        token = call.token = call.token + 1
        self._later(delay_s, lambda: self._settled(call, token, failure))

    def _settled(self, call: Call, token: int, failure: str) -> None:
        if call is not self.call or call.token != token:
            return
        call.over, self.call = True, None
        if failure:
            self.leave()
        self._tell(call, failure)

    def _time_out(self, begun: int) -> None:
        if self.call is not None and begun == self._begun:
            self.settle(self.call, 0.0, "timed out")
