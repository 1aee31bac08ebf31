"""Collectives in virtual time: they complete for all members, for some, or for none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from raysgd_local.simulation.engine.violation import violated


class Peer(Protocol):
    """A member's connection, for the network."""

    name: str

    def settle(self, call: Call, delay_s: float, failure: str) -> None:
        """End the call after `delay_s`: failed for this reason, complete if it is empty. A later call overrides it."""
        ...


GREETING = "greet"
"""The label of the comparison with which members begin a view. It counts as part of connecting: it takes no time."""

Combine = Callable[[Sequence[Any]], Any]


@dataclass(eq=False)
class Call:
    """One member's part in one collective."""

    view: int
    number: int  # of the collective in its view, from 1
    label: str  # kind of collective; equal on all members
    worker: Peer
    given: Any = None  # this member's input
    source: int | None = None  # of a broadcast: the rank that sends
    size_bytes: int = 0
    result: Any = None  # set when the collective is complete for this member
    complete: bool = False  # for this member
    over: bool = False  # this member was told the end
    token: int = 0  # counts `settle`: only the newest has an effect


@dataclass
class _Room:
    """The collectives of one view. All members call the same collectives in the same order."""

    members: tuple[str, ...]  # in rank order
    calls: dict[int, dict[str, Call]] = field(default_factory=dict)  # by number of the collective, then by member
    counts: dict[str, int] = field(default_factory=dict)  # calls of each member
    gone: set[str] = field(default_factory=set)  # members that left


class SimulatedNetwork:
    """The network of a fleet. `cost` returns a collective's duration in seconds, from a call and the number of members.

    `chance` is the probability that a broken collective still completes for a member.
    """

    def __init__(self, random: Random, cost: Callable[[Call, int], float], chance: float = 0.5) -> None:
        self._random, self._cost, self._chance = random, cost, chance
        self._rooms: dict[tuple[int, int], _Room] = {}
        self.generation = 0

    def _room(self, view: int, members: tuple[str, ...]) -> _Room:
        room = self._rooms.setdefault((self.generation, view), _Room(members))
        if room.members != members:
            violated("one view, one membership", f"view {view} is {room.members} and {members}")
        return room

    def call(self, call: Call, members: tuple[str, ...], combine: Combine) -> None:
        """Take a member's call, and end the calls of members for which the collective is now complete."""
        room = self._room(call.view, members)
        name = call.worker.name
        call.number = room.counts[name] = room.counts.get(name, 0) + 1
        calls = room.calls.setdefault(call.number, {})
        calls[name] = call
        labels = {other.label for other in calls.values()}
        if len(labels) > 1:
            violated("the same collectives in the same order", f"view {call.view}: {sorted(labels)}")
        room.calls.pop(call.number - 16, None)
        if not room.gone or (call.source is not None and self._given(room, call)):
            self._complete(room, calls, call, combine)
        if room.gone and not call.complete:
            call.worker.settle(call, self._random.uniform(0.01, 0.06), "a peer left")

    def _given(self, room: _Room, call: Call) -> bool:
        return room.members[call.source or 0] in room.calls[call.number]

    def _complete(self, room: _Room, calls: dict[str, Call], call: Call, combine: Combine) -> None:
        """Complete a reduction when all have called; a broadcast may complete for its receivers once the source has."""
        if len(calls) == len(room.members):
            result = combine([calls[name].given for name in room.members]) if call.source is None else None
            ready = list(calls.values())
        elif call.source is not None and self._chance and self._given(room, call):
            ready, result = [other for other in calls.values() if self._random.random() < 0.7], None
        else:
            return
        cost_s = self._cost(call, len(room.members))
        for other in ready:
            if not other.complete and not other.over:
                other.complete = True
                source = call.source
                other.result = result if source is None else calls[room.members[source]].given
                jitter_s = 0.0 if call.label == GREETING else self._random.uniform(0, 0.002)
                other.worker.settle(other, cost_s + jitter_s, "")

    def leave(self, worker: str, view: int, members: tuple[str, ...]) -> None:
        """Fail the collectives in flight, because a member closed its side or died. Some may still complete."""
        room = self._room(view, members)
        if worker in room.gone:
            return
        room.gone.add(worker)
        for calls in room.calls.values():
            for other in calls.values():
                if other.over or (other.complete and self._random.random() < self._chance):
                    continue
                other.worker.settle(other, self._random.uniform(0.01, 0.06), f"lost {worker}")
