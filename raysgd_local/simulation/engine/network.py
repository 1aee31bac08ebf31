"""Collectives in virtual time: they complete for all, for some, or for nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from raysgd_local.simulation.engine.violation import violated


class Peer(Protocol):
    """A worker as its peers know it."""

    name: str

    def settle(self, call: Call, delay_s: float, failure: str) -> None:
        """After `delay_s` the call is complete, or failed for the reason given; a later word counts instead."""
        ...


Combine = Callable[[Sequence[Any]], Any]


@dataclass(eq=False)
class Call:
    """One member's part in one collective, over `size_bytes`; of a broadcast, `source` is the rank that gives.

    `result` is set when the collective has one for this member.
    """

    view: int
    number: int
    label: str
    worker: Peer
    given: Any = None
    source: int | None = None
    size_bytes: int = 0
    result: Any = None
    complete: bool = False
    over: bool = False
    token: int = 0


@dataclass
class _Room:
    """The collectives of one view: each member makes the same calls in the same order."""

    members: tuple[str, ...]
    calls: dict[int, dict[str, Call]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)


class SimulatedNetwork:
    """All views' rooms. `cost` gives a collective's seconds from a call and how many take part.

    `chance` is how likely a collective that breaks is complete for some of its members.
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
        """A member takes part; whoever's collective is complete now is told so."""
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
        """A reduction needs all; a broadcast's receivers need the source, which need not wait for them."""
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
                other.worker.settle(other, cost_s + self._random.uniform(0, 0.002), "")

    def leave(self, worker: str, view: int, members: tuple[str, ...]) -> None:
        """A member closed its side, or died: of those that wait, some may still complete."""
        room = self._room(view, members)
        if worker in room.gone:
            return
        room.gone.add(worker)
        for calls in room.calls.values():
            for other in calls.values():
                if other.over or (other.complete and self._random.random() < self._chance):
                    continue
                other.worker.settle(other, self._random.uniform(0.01, 0.06), f"lost {worker}")
