"""The driver's side of `--chaos`: make faults happen when they are due, and record them."""

from __future__ import annotations

import heapq
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import ray

from raysgd_local.control.controller.events import Command, Event, Form
from raysgd_local.control.run_events import EventName
from raysgd_local.faults.language import Fault
from raysgd_local.faults.schedule import Alarm, Reached, RoundWatch, Strike, Victim, advance, begin
from raysgd_local.runtime.fault_effects import ON_DRIVER, obstacle


class Victims(Protocol):
    """The workers, for faults."""

    def suffer(self, worker: str, fault: Fault) -> None: ...

    def watch(self, worker: str, watches: tuple[RoundWatch, ...]) -> None: ...


class Injector:
    """Makes the faults of a schedule happen. Faults that happened before a restart don't happen again."""

    def __init__(
        self,
        schedule: tuple[Fault, ...],
        victims: Victims,
        post: Callable[[Event], None],  # gives the controller an event
        record: Callable[..., None],  # writes a line into events.jsonl
        events: Iterable[dict[str, Any]] = (),  # earlier lines of events.jsonl
        head: str = "",  # the cluster's head node
        damage: Callable[[], bool] = lambda: False,  # damages the newest checkpoint; False if there is none
    ) -> None:
        told = frozenset((e["number"], e["fault"]) for e in events if e["event"] == EventName.CHAOS_FIRED)
        self._chaos, self.head = begin(schedule, head, told), head
        self._victims, self.post, self._record, self.damage = victims, post, record, damage
        self.suffer = victims.suffer
        self._alarms: list[tuple[float, int]] = []
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        threading.Thread(target=self._keep_time, daemon=True, name="chaos").start()

    def see(self, event: Event, commands: tuple[Command, ...]) -> None:
        """Take a turn of the controller: its event and its commands."""
        self._advance(event)
        for command in commands:
            if isinstance(command, Form):
                self._advance(command)

    def reached(self, worker: str, number: int) -> Fault | None:
        """Take the commit of a round for which a fault waits. Return the fault if the worker has to cause it itself."""
        return self._advance(Reached(number), asking=worker)

    def _keep_time(self) -> None:
        with self._changed:
            while not self._closed:
                if self._alarms and self._alarms[0][0] <= time.monotonic():
                    self._advance(Reached(heapq.heappop(self._alarms)[1]))
                else:
                    self._changed.wait(self._alarms[0][0] - time.monotonic() if self._alarms else None)

    def _advance(self, event: Event | Form | Reached, asking: str = "") -> Fault | None:
        own: Fault | None = None
        with self._changed:
            self._chaos, commands = advance(self._chaos, event)
            watches: dict[str, tuple[RoundWatch, ...]] = {}
            for command in commands:
                match command:
                    case RoundWatch(worker):
                        watches[worker] = (*watches.get(worker, ()), command)
                    case Alarm(number, delay_s):
                        heapq.heappush(self._alarms, (time.monotonic() + delay_s, number))
                    case Strike(_, fault):
                        own = fault if self._strike(command, asking) else own
            for worker, of_worker in watches.items():
                self._victims.watch(worker, of_worker)
            self._changed.notify()
        return own

    def _strike(self, strike: Strike, asking: str) -> bool:
        """Record the fault, then make it happen. Return whether the asking worker has to cause it itself."""
        fault, victims = strike.fault, strike.victims
        reason = obstacle(self, fault, victims)
        if reason:
            self._unfired(strike.number, fault, reason)
            return False
        for victim in victims or (Victim("", ray.get_runtime_context().get_node_id(), os.getpid()),):
            told = {"worker": victim.worker, "pid": victim.pid, "node": victim.node}
            self._record(EventName.CHAOS_FIRED, fault=str(fault), number=strike.number, **told)
        if fault.kind in ON_DRIVER:
            ON_DRIVER[fault.kind](self, fault, victims)
            return False
        if fault.kind == "kill" and fault.among == "nodes":  # one worker ends the node, and so the others
            self.suffer(victims[0].worker, fault)
            return False
        for victim in victims:
            if victim.worker != asking:
                self.suffer(victim.worker, fault)
        return asking in {victim.worker for victim in victims}

    def _unfired(self, number: int, fault: Fault, reason: str) -> None:
        self._record(EventName.CHAOS_UNFIRED, fault=str(fault), number=number, reason=reason)

    def close(self) -> None:
        """Record the faults that did not happen, at the end of the run."""
        with self._changed:
            self._closed = True
            for number, fault in self._chaos.pending.items():
                self._unfired(number, fault, "the run ended first, or there was no such target")
            self._changed.notify()
