"""When the faults of a schedule are due, and to whom they happen: one scheduler for real and simulated runs, pure.

`advance(chaos, event)` is told what the controller is told, the orders that it gives, and each moment that it asked to
be told of (`RoundWatch`, `Alarm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from raysgd_local.control.controller.events import Died, Event, Form, Progress, UserError, WorkerUp
from raysgd_local.control.messages import View
from raysgd_local.faults.kinds import RUN
from raysgd_local.faults.language import Fault

T = TypeVar("T")
ANYONE = ""  # a watch for a round that any member commits


@dataclass(frozen=True)
class Victim:
    worker: str
    node: str
    pid: int


@dataclass(frozen=True)
class Reached:
    """The moment of fault `number` has come."""

    number: int
    running: tuple[Victim, ...] = ()  # in a simulation: the workers whose processes run, for a drawn fault


@dataclass(frozen=True)
class Strike:
    """Make the fault happen now, to all of `victims`, or to the run itself if there are none."""

    number: int
    fault: Fault
    victims: tuple[Victim, ...]


@dataclass(frozen=True)
class RoundWatch:
    """Answer with `Reached(number)` when `worker` has committed a round of at least `round` in this view."""

    worker: str
    view: int
    number: int
    round: int


@dataclass(frozen=True)
class Alarm:
    """Answer with `Reached(number)` after `delay_s` seconds."""

    number: int
    delay_s: float


Command = Strike | RoundWatch | Alarm


@dataclass(frozen=True)
class Chaos:
    """The state of a schedule."""

    pending: dict[int, Fault]  # the faults that have not happened, by their number in the schedule
    home: str = ""  # the cluster's head node, number 0; empty in a simulation
    due: frozenset[int] = frozenset()  # pending faults whose moment has come: they wait for a victim
    up: dict[str, Victim] = field(default_factory=dict)  # workers whose processes run, in the controller's view
    view: View | None = None  # of the newest order
    began: bool = False  # a round is committed: seconds count from the first one

    def at_event(self) -> dict[int, list[int]]:
        """The numbers of the faults that wait for an event of the simulation, by that event's number."""
        numbers: dict[int, list[int]] = {}
        for number, fault in self.pending.items():
            if fault.when.event is not None:
                numbers.setdefault(fault.when.event, []).append(number)
        return numbers


def begin(schedule: tuple[Fault, ...], home: str = "", fired: frozenset[tuple[int, str]] = frozenset()) -> Chaos:
    """Return the state before the run. `fired` has number and words of the faults that happened before a restart."""
    numbered = dict(enumerate(schedule))
    return Chaos({n: fault for n, fault in numbered.items() if (n, str(fault)) not in fired}, home=home)


def restarted(chaos: Chaos) -> Chaos:
    """Return the state for another driver: it keeps the faults that happened, and forgets all workers and views."""
    return Chaos(chaos.pending, chaos.home)


def advance(chaos: Chaos, event: Event | Form | Reached) -> tuple[Chaos, tuple[Command, ...]]:
    """Return the next state, and the commands: the faults that happen now, and the moments to wait for.

    A fault whose moment has come while it has no victim stays pending; a drawn one is dropped.
    """
    match event:
        case WorkerUp(worker, node, pid):
            chaos = replace(chaos, up={**chaos.up, worker: Victim(worker, node, pid)})
        case Died(worker) | UserError(worker):
            up = {name: victim for name, victim in chaos.up.items() if name != worker}
            chaos = replace(chaos, up=up)
        case Progress(round=round) if round > 0 and not chaos.began:
            return replace(chaos, began=True), _alarms(chaos)
        case Form(order) if order.view != chaos.view:
            chaos, strikes = _strike_due(replace(chaos, view=order.view))
            return chaos, (*strikes, *_watches(chaos, order.view))
        case Reached(number, running) if number in chaos.pending and chaos.pending[number].drawn:
            return _strike_drawn(chaos, number, running)
        case Reached(number) if number in chaos.pending:
            chaos = replace(chaos, due=chaos.due | {number})
    return _strike_due(chaos)


def _alarms(chaos: Chaos) -> tuple[Alarm, ...]:
    seconds = [(number, fault.when.seconds) for number, fault in chaos.pending.items()]
    return tuple(Alarm(number, delay_s) for number, delay_s in seconds if delay_s is not None)


def _watches(chaos: Chaos, view: View) -> tuple[RoundWatch, ...]:
    watches = []
    for number, fault in chaos.pending.items():
        watcher = None if fault.when.round is None else _watcher(fault, view)
        if watcher is not None and fault.when.round is not None:
            watches.append(RoundWatch(watcher, view.number, number, fault.when.round))
    return tuple(watches)


def _watcher(fault: Fault, view: View) -> str | None:
    """Return the watches of a view: a member watches for its own faults, and the first member for all others."""
    if fault.drawn:
        return ANYONE
    rank = fault.target if fault.among == "members" and fault.row.targets != RUN else 0
    return view.members[rank] if rank < len(view.members) else None


def _strike_due(chaos: Chaos) -> tuple[Chaos, tuple[Strike, ...]]:
    found = [(number, _victims(chaos, chaos.pending[number])) for number in sorted(chaos.due)]
    strikes = tuple(Strike(n, chaos.pending[n], victims) for n, victims in found if victims is not None)
    return _without(chaos, frozenset(strike.number for strike in strikes)), strikes


def _strike_drawn(chaos: Chaos, number: int, running: tuple[Victim, ...]) -> tuple[Chaos, tuple[Strike, ...]]:
    fault = chaos.pending[number]
    knowing = replace(chaos, up={victim.worker: victim for victim in running})
    victims = _victims(knowing, fault)
    return _without(chaos, frozenset({number})), () if victims is None else (Strike(number, fault, victims),)


def _without(chaos: Chaos, numbers: frozenset[int]) -> Chaos:
    if not numbers:
        return chaos
    pending = {number: fault for number, fault in chaos.pending.items() if number not in numbers}
    return replace(chaos, pending=pending, due=chaos.due - numbers)


def _victims(chaos: Chaos, fault: Fault) -> tuple[Victim, ...] | None:
    """Return the workers that `fault` hits now, empty for a fault of the run; None if it has to wait."""
    if fault.row.targets == RUN:
        return ()
    members = chaos.view.members if chaos.view is not None else ()
    if fault.among == "joiners":
        seats: list[Victim | None] = [victim for name, victim in chaos.up.items() if name not in members]
    else:
        seats = [chaos.up.get(name) for name in members]
    running = [victim for victim in seats if victim is not None]
    if fault.among == "nodes":
        node = _chosen(list(dict.fromkeys([chaos.home] * bool(chaos.home) + [v.node for v in running])), fault)
        return tuple(victim for victim in running if victim.node == node) or None
    # For written words a dead member keeps its rank until the next view.
    victim = _chosen(running, fault) if fault.drawn else _chosen(seats, fault)
    return None if victim is None else (victim,)


def _chosen(candidates: Sequence[T], fault: Fault) -> T | None:
    """`target` of a drawn fault is taken modulo the number of candidates, so that it always hits someone."""
    target = fault.target % len(candidates) if fault.drawn and candidates else fault.target
    return candidates[target] if target < len(candidates) else None
