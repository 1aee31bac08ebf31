"""A worker's clock and its connection to the controller, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raysgd_local.control.controller.events import Arrived, CheckpointFailed, Progress, ShardWritten
from raysgd_local.control.messages import Order, Report
from raysgd_local.simulation.engine.world import World


class VirtualClock:
    """Shows the fleet's virtual time."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        return self._world.now


class VirtualLink:
    """A worker's connection to the controller. `next_order` waits for an order and returns it."""

    def __init__(
        self, worker: str, world: World, next_order: Callable[[], Order], log: Callable[[dict[str, Any]], None]
    ) -> None:
        self._worker, self._world, self._next_order, self._log = worker, world, next_order, log

    def arrive(self, report: Report) -> Order:
        self._world.tell(self._worker, Arrived(report))
        order = self._next_order()
        while order.number <= (report.view, report.segment):  # a past order: it does not answer this report
            order = self._next_order()
        return order

    def formed(self, view: int, round: int, steps: int) -> None:
        self._world.tell(self._worker, Progress(self._worker, view, round, steps))

    def tell(self, event: ShardWritten | CheckpointFailed) -> None:
        self._world.tell(self._worker, event)

    def log(self, fields: dict[str, Any]) -> None:
        self._log(fields)
