"""Compute when each worker begins a reduction, when it is complete, and how far workers compute meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raysgd_local.control.control_slots import Control
from raysgd_local.control.member import events as m
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.simulation.cluster.step_times import Floats
from raysgd_local.simulation.timing.contributions import Contributions
from raysgd_local.simulation.timing.plan import TimingPlan
from raysgd_local.simulation.timing.reduction_cost import cost


@dataclass(frozen=True)
class _Flight:
    """A reduction in flight."""

    view: int
    control: Control  # all members' slots
    began: Floats  # time at which each worker began it, (workers,)
    arrives: float  # time at which it is complete


@dataclass(frozen=True)
class _Ahead:
    """The steps of the open round that workers took while the last reduction was in flight."""

    steps: int
    compute_s: Floats  # each worker's time in these steps, (workers,)
    behind_s: Floats  # time at which each worker was free, minus the present time: 0 or less, (workers,)


class Reductions:
    """All members' reductions, one after the other. `sent_bytes` is what each member sent in the newest."""

    def __init__(self, plan: TimingPlan) -> None:
        self._plan = plan
        self._random = np.random.default_rng(plan.seed)
        self._speeds = np.array([plan.cluster.speed(number) for number in range(plan.workers)])
        self._contributions = Contributions(plan)
        self._told = np.zeros(plan.workers)  # when each began its newest exchange
        self._flight: _Flight | None = None
        self._ahead = _Ahead(0, np.zeros(plan.workers), np.zeros(plan.workers))
        self.sent_bytes = 0

    def start(self, now: float) -> None:
        """Begin training time, at the first batch."""
        self._told[:] = now

    def begin(self, command: m.Exchange, state: Replicated, now: float) -> None:
        """Let all workers compute, then begin the reduction when the last one arrives."""
        said, ahead = replace(command.said, wire_bytes=self.sent_bytes), self._ahead
        drawn = self._computing(said.steps - ahead.steps)
        began = now + ahead.behind_s + drawn  # (workers,)
        control = self._contributions.control(said, state, ahead.compute_s + drawn, began - self._told)
        found = cost(self._plan, state, control, command.mode == "partial")
        self._flight = _Flight(command.view, control, began, float(began.max()) + found.seconds)
        self._told, self.sent_bytes = began, found.sent_bytes

    def collect(self, steps: int) -> tuple[m.Exchanged, float]:
        """Wait for the reduction, `steps` steps after its begin. Return the outcome, and the time when all have it."""
        flight = self._flight
        if flight is None:
            raise RuntimeError("nothing was begun")
        compute_s = self._computing(steps)
        ready = flight.began + compute_s
        free = np.maximum(ready, flight.arrives)
        now, self._flight = float(free.max()), None
        self._ahead = _Ahead(steps, compute_s, free - now)
        waited_s = float(max(0.0, flight.arrives - ready[0]))
        return m.Exchanged(flight.view, flight.control, waited_s), now

    def _computing(self, steps: int) -> Floats:
        """Draw the seconds that so many steps take on each worker, (workers,)."""
        shape = (self._plan.workers, steps)
        seconds: Floats = self._plan.cluster.steps.draw(self._random, shape).sum(axis=1) / self._speeds
        return seconds
