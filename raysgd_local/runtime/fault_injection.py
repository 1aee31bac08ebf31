"""The driver's side of `--chaos`: it lets faults happen when they are due, and writes down that they did."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import ray

from raysgd_local.control.controller.events import Command, DrainNotice, Event, Form, StopRequested
from raysgd_local.control.run_events import RunEvent
from raysgd_local.faults.language import Fault, When
from raysgd_local.faults.schedule import Moment, Reached, RoundWatch, Strike, Victim, advance, begin
from raysgd_local.runtime import nodes

_KILL = Fault("kill", When())


class Victims(Protocol):
    """The workers, as faults reach them."""

    def suffer(self, worker: str, fault: Fault) -> None: ...

    def watch(self, worker: str, watches: tuple[RoundWatch, ...]) -> None: ...


class Injector:
    """Lets the faults of a schedule happen. `post` is the controller's inbox, `record` writes to `events.jsonl`.

    Those that `events` of an earlier life of the run tell of don't happen again. `head` is the cluster's head node.
    `damage` spoils the newest checkpoint, if there is one.
    """

    def __init__(
        self,
        schedule: tuple[Fault, ...],
        victims: Victims,
        post: Callable[[Event], None],
        record: Callable[..., None],
        events: Iterable[dict[str, Any]] = (),
        head: str = "",
        damage: Callable[[], bool] = lambda: False,
    ) -> None:
        told = frozenset((e["number"], e["fault"]) for e in events if e["event"] == RunEvent.CHAOS_FIRED)
        self._chaos, self._head = begin(schedule, head, told), head
        self._victims, self._post, self._record, self._damage = victims, post, record, damage
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        threading.Thread(target=self._keep_time, daemon=True, name="chaos").start()

    def see(self, event: Event, commands: tuple[Command, ...]) -> None:
        """What the controller was told, and what it said."""
        self._advance(event)
        for command in commands:
            if isinstance(command, Form):
                self._advance(command)

    def reached(self, worker: str, number: int) -> Fault | None:
        """The round of a fault is committed: the fault, if it is the asking worker's own to suffer."""
        return self._advance(Reached(number), asking=worker)

    def _keep_time(self) -> None:
        with self._changed:
            while not self._closed:
                self._changed.wait(self._chaos.wait_s(time.monotonic()))
                if not self._closed:
                    self._advance(Moment())

    def _advance(self, event: Event | Form | Moment | Reached, asking: str = "") -> Fault | None:
        own: Fault | None = None
        with self._changed:
            self._chaos, commands = advance(self._chaos, event, time.monotonic())
            watches: dict[str, tuple[RoundWatch, ...]] = {}
            for command in commands:
                if isinstance(command, RoundWatch):
                    watches[command.worker] = (*watches.get(command.worker, ()), command)
                elif self._strike(command, asking):
                    own = command.fault
            for worker, of_worker in watches.items():
                self._victims.watch(worker, of_worker)
            self._changed.notify()
        return own

    def _strike(self, strike: Strike, asking: str) -> bool:
        """Write it down, then let it happen; whether it is left to the worker that asks."""
        fault, victims = strike.fault, strike.victims
        if fault.kind == "kill" and fault.among == "nodes" and victims[0].node == self._head:
            self._unfired(strike.number, fault, "the cluster's head is on that node")
            return False
        if fault.kind == "damage" and not self._damage():
            self._unfired(strike.number, fault, "there is no checkpoint to damage")
            return False
        for victim in victims or (Victim("", ray.get_runtime_context().get_node_id(), os.getpid()),):
            told = {"worker": victim.worker, "pid": victim.pid, "node": victim.node}
            self._record(RunEvent.CHAOS_FIRED, fault=str(fault), number=strike.number, **told)
        match fault.kind:
            case "driver":
                os.kill(os.getpid(), signal.SIGKILL)
            case "damage":
                pass  # it was done before it was told: there may be nothing to damage
            case "interrupt":
                self._post(StopRequested("asked to by --chaos"))
            case "drain":
                self._drain(fault, victims)
            case "kill" if fault.among == "nodes":  # one of them ends the node, and that the others
                self._victims.suffer(victims[0].worker, fault)
            case _:  # what happens in the workers' own processes
                for victim in victims:
                    if victim.worker != asking:
                        self._victims.suffer(victim.worker, fault)
                return asking in {victim.worker for victim in victims}
        return False

    def _drain(self, fault: Fault, victims: tuple[Victim, ...]) -> None:
        """Ray drains a whole node, and tells us; for a worker, or where the head is, we tell ourselves.

        When the time is over the machine does go: neither Ray nor we take that away again.
        """
        why = f"its machine goes in {fault.amount:g} s, says --chaos"
        first = victims[0]
        if fault.among == "nodes" and first.node != self._head and nodes.drain(first.node, fault.amount, why):
            self._victims.suffer(first.worker, fault)
            return
        for victim in victims:
            self._post(DrainNotice(victim.worker, why))
            gone = threading.Timer(fault.amount, self._victims.suffer, (victim.worker, _KILL))
            gone.daemon = True
            gone.start()

    def _unfired(self, number: int, fault: Fault, reason: str) -> None:
        self._record(RunEvent.CHAOS_UNFIRED, fault=str(fault), number=number, reason=reason)

    def close(self) -> None:
        """The run is over; what did not happen is told."""
        with self._changed:
            self._closed = True
            for number, fault in self._chaos.pending.items():
                self._unfired(number, fault, "the run ended first, or there was nobody whom it could happen to")
            self._changed.notify()
