"""When the faults of a schedule are due, and to whom they happen: pure, as all that decides.

`advance(chaos, event, now)` is told what the controller is told, the orders that it gives, and the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from raysgd_local.control.controller.events import Died, Event, Form, Progress, UserError, WorkerUp
from raysgd_local.control.messages import View
from raysgd_local.faults.language import UNTARGETED, Fault


@dataclass(frozen=True)
class Moment:
    """Time has passed."""


@dataclass(frozen=True)
class Reached:
    """A worker that was asked to watch has committed the round of fault `number`."""

    number: int


@dataclass(frozen=True)
class Victim:
    worker: str
    node: str
    pid: int


@dataclass(frozen=True)
class Strike:
    """Let it happen now, to all of these; to the run itself where there are none."""

    number: int
    fault: Fault
    victims: tuple[Victim, ...]


@dataclass(frozen=True)
class RoundWatch:
    """`worker` tells when it commits a round of at least `round` in this view."""

    worker: str
    view: int
    number: int
    round: int


Command = Strike | RoundWatch


@dataclass(frozen=True)
class Chaos:
    """`pending` are the faults that did not happen yet, by their number in the schedule, `reached` the numbers of
    those whose round is committed. `home` is node 0, which the cluster can't do without. `up` are the workers whose
    processes run; `began_s` is when the first round was committed.
    """

    pending: dict[int, Fault]
    home: str = ""
    reached: frozenset[int] = frozenset()
    up: dict[str, Victim] = field(default_factory=dict)
    view: View | None = None
    began_s: float | None = None

    def wait_s(self, now: float) -> float | None:
        """Until the next fault that waits for a time; None where none does. What is late waits for a victim."""
        if self.began_s is None:
            return None
        passed_s = now - self.began_s
        times = [f.when.seconds - passed_s for f in self.pending.values() if f.when.seconds is not None]
        return min((time for time in times if time > 0), default=None)


def begin(schedule: tuple[Fault, ...], home: str = "", fired: frozenset[tuple[int, str]] = frozenset()) -> Chaos:
    """Before the run. `fired` has the number and the words of those that happened in an earlier life of it."""
    numbered = dict(enumerate(schedule))
    return Chaos({n: fault for n, fault in numbered.items() if (n, str(fault)) not in fired}, home=home)


def advance(chaos: Chaos, event: Event | Form | Moment | Reached, now: float) -> tuple[Chaos, tuple[Command, ...]]:
    """The next state, the faults that are due, and who is to watch for those that wait for a round.

    A fault that is due while there is nobody whom it could happen to stays pending.
    """
    watches: tuple[RoundWatch, ...] = ()
    match event:
        case WorkerUp(worker, node, pid):
            chaos = replace(chaos, up={**chaos.up, worker: Victim(worker, node, pid)})
        case Died(worker) | UserError(worker):
            up = {name: victim for name, victim in chaos.up.items() if name != worker}
            chaos = replace(chaos, up=up)
        case Progress(round=round) if round > 0 and chaos.began_s is None:
            chaos = replace(chaos, began_s=now)
        case Form(order) if order.view != chaos.view:
            chaos = replace(chaos, view=order.view)
            watches = _watches(chaos, order.view)
        case Reached(number):
            chaos = replace(chaos, reached=chaos.reached | {number})
    due = [n for n, fault in chaos.pending.items() if n in chaos.reached or _late(chaos, fault, now)]
    strikes = tuple(strike for n in due if (strike := _strike(chaos, n)) is not None)
    struck = {strike.number for strike in strikes}
    pending = {n: fault for n, fault in chaos.pending.items() if n not in struck}
    return replace(chaos, pending=pending), (*strikes, *watches)


def _late(chaos: Chaos, fault: Fault, now: float) -> bool:
    began_s, seconds = chaos.began_s, fault.when.seconds
    return began_s is not None and seconds is not None and now - began_s >= seconds


def _watches(chaos: Chaos, view: View) -> tuple[RoundWatch, ...]:
    """A member watches for itself; for all else the first of them does."""
    watches = []
    for number, fault in chaos.pending.items():
        own = fault.among == "members" and fault.kind not in UNTARGETED
        rank = fault.target if own else 0
        if fault.when.round is not None and rank < len(view.members):
            watches.append(RoundWatch(view.members[rank], view.number, number, fault.when.round))
    return tuple(watches)


def _strike(chaos: Chaos, number: int) -> Strike | None:
    fault = chaos.pending[number]
    if fault.kind in UNTARGETED:
        return Strike(number, fault, ())
    victims = _victims(chaos, fault)
    return Strike(number, fault, victims) if victims else None


def _victims(chaos: Chaos, fault: Fault) -> tuple[Victim, ...]:
    members = chaos.view.members if chaos.view is not None else ()
    if fault.among == "joiners":
        seats: list[Victim | None] = [victim for name, victim in chaos.up.items() if name not in members]
    else:
        seats = [chaos.up.get(name) for name in members]  # who died keeps its rank until the next view
    if fault.among == "nodes":
        return _on_node(chaos.home, [victim for victim in seats if victim is not None], fault.target)
    chosen = seats[fault.target] if fault.target < len(seats) else None
    return (chosen,) if chosen is not None else ()


def _on_node(home: str, alive: list[Victim], number: int) -> tuple[Victim, ...]:
    nodes = list(dict.fromkeys([home] * bool(home) + [victim.node for victim in alive]))
    return tuple(victim for victim in alive if number < len(nodes) and victim.node == nodes[number])
