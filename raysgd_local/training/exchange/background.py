"""Run one exchange in a thread of its own, while the training thread goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress

from raysgd_local.control.control_slots import Contribution, Control
from raysgd_local.control.member.events import Exchange
from raysgd_local.control.replicated.extent import Extent
from raysgd_local.training.exchange.delayed import DelayedReduction
from raysgd_local.training.exchange.plain import Reduction
from raysgd_local.transport.contract import Transport


class BackgroundExchange:
    """At most one exchange at a time. `executor` runs it; by default a thread does."""

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = executor
        self._flight: Future[tuple[Control, int]] | None = None

    def launch(
        self,
        reducing: Reduction,
        transport: Transport | None,
        command: Exchange,
        said: Contribution,
        extent: Callable[[Control], Extent],
    ) -> None:
        """Copy the present state and begin its exchange. `collect` returns the result, or raises the error."""
        if transport is None or not isinstance(reducing, DelayedReduction):
            raise RuntimeError("averagings travel in a view, with a method that is delayed")
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="averaging")
        before = transport.wire_bytes()
        work = reducing.launch(transport, command.mode, command.round, said, extent)
        self._flight = self._executor.submit(lambda: (work(), transport.wire_bytes() - before))

    @property
    def flies(self) -> bool:
        """Whether an exchange was launched and not collected."""
        return self._flight is not None

    def collect(self) -> tuple[Control, int]:
        """Wait for the exchange; return all members' slots and the bytes sent. Raises the exchange's error."""
        flight, self._flight = self._flight, None
        if flight is None:
            raise RuntimeError("nothing was launched")  # a bug of the shell
        return flight.result()

    def land(self) -> None:
        """Wait for the end of the exchange and drop its result. Cut the view first, so that it ends."""
        if self._flight is not None:
            with suppress(Exception):
                self._flight.result()
            self._flight = None

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False)
