"""One member's side of the network: at most one view is joined, at most one collective in flight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raysgd_local.simulation.engine.network import Call, Combine, SimulatedNetwork

Later = Callable[[float, Callable[[], None]], None]


class Connection:
    """`later` does something after some seconds; `settled` hears of each call's end: why it failed, or nothing."""

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
        """Leave the view before for this one, unless it was cut already."""
        self.leave()
        if view in self._cuts:
            return False
        self._view, self._peers = view, peers
        return True

    def cut(self, view: int) -> None:
        self._cuts.add(view)
        if self._view == view:
            self.leave()

    def leave(self) -> None:
        if self._view is not None:
            view, self._view = self._view, None
            self._network.leave(self.name, view, self._peers)

    def begin(self, label: str, combine: Combine, given: Any, source: int | None, size_bytes: int) -> bool:
        """Take part in the view's next collective; False if the view was left."""
        if self._view is None:
            return False
        call = self.call = Call(self._view, 0, label, self, given, source, size_bytes)
        begun = self._begun = self._begun + 1  # a timer is kept for long after: it must not keep what was given
        self._later(self._timeout_s, lambda: self._time_out(begun))
        self._network.call(call, self._peers, combine)
        return True

    def drop(self) -> None:
        """Leave the view, whatever is under way in it: nobody waits for that any more."""
        self.leave()
        self.call = None

    def settle(self, call: Call, delay_s: float, failure: str) -> None:
        """Complete or failed in a while; the newest word counts."""
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
