"""Collectives of a simulated process: it waits for the result, or goes on while the collective is in flight."""

from __future__ import annotations

from typing import Any

from raysgd_local.errors import TransportError
from raysgd_local.simulation.engine.connection import Connection, Later
from raysgd_local.simulation.engine.network import Call, Combine, SimulatedNetwork
from raysgd_local.simulation.engine.scenario import Scenario
from raysgd_local.simulation.engine.strand import Strand


class Collectives:
    """The collectives of one process. While `awaited` is false, the end of a collective does not wake the process."""

    def __init__(
        self, name: str, network: SimulatedNetwork, later: Later, strand: Strand, scenario: Scenario
    ) -> None:
        self._strand, self._size_bytes = strand, scenario.state_bytes
        self.awaited = True
        self._end: tuple[Call | None, str] | None = None  # newest collective, why it failed; None while in flight
        self.connection = Connection(name, network, later, scenario.collective_timeout_s, self._settled)

    def call(self, label: str, combine: Combine, given: Any = None, source: int | None = None) -> Any:
        """Take part and wait for the result. Raises `TransportError` if the collective failed for this member."""
        self.begin(label, combine, given, source)
        return self.result()

    def begin(self, label: str, combine: Combine, given: Any, source: int | None = None) -> None:
        """Take part without waiting."""
        self._end = None
        if not self.connection.begin(label, combine, given, source, self._size_bytes):
            self._end = None, "the view was left"

    def _settled(self, call: Call, failure: str) -> None:
        self._end = call, failure
        if self.awaited:
            self._strand.go_on()

    def result(self) -> Any:
        """Wait for the collective's result. Raises `TransportError` if it failed for this member."""
        if self._end is None:
            self._strand.wait()
        call, failure = self._end or (None, "")
        if failure or call is None:
            raise TransportError(failure)
        return call.result
