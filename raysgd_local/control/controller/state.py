"""The controller's state, and the turn in which one event changes it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.controller.checkpoints import CheckpointRecord, Saves
from raysgd_local.control.controller.events import Command, RecordEvent, SetTimer, Status
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.messages import Report, View


class Phase(Enum):
    """Where the run is.

    STARTING: no view yet. RUNNING: members run a segment. RESOLVING: the view is broken, survivors are awaited.
    RESTORING: nobody has state; a checkpoint will be loaded. PAUSED: too few workers. FINISHING: all is written,
    workers end by themselves. ENDED: nothing has an effect any more.
    """

    STARTING = "starting"
    RUNNING = "running"
    RESOLVING = "resolving"
    RESTORING = "restoring"
    PAUSED = "paused"
    FINISHING = "finishing"
    ENDED = "ended"


class Standing(Enum):
    """Where one worker is."""

    REQUESTED = "requested"
    UP = "up"
    READY = "ready"  # built, without state, waits to enter
    MEMBER = "member"
    LEAVING = "leaving"  # a member until the next boundary


@dataclass(frozen=True)
class WorkerRow:
    standing: Standing = Standing.REQUESTED
    node: str = ""
    pid: int = 0
    up_s: float = 0.0


@dataclass(frozen=True)
class Controller:
    """The whole state of the run's brain; nothing in it is a handle, a tensor or a path.

    `arrivals` are the reports of the boundary that is being gathered, since `arriving_since` (the first of them, or
    the view's break), `books` the resolved state. `burned` is the
    newest view that broke. `stop` says why the run is asked to end, `outcome` how it will: training is over, and
    members stay until the last checkpoint stands. `broken_s` is when the
    view broke, `paused_since` when the pause began. `draining` are the nodes that will go away.
    """

    settings: Settings
    phase: Phase = Phase.STARTING
    workers: dict[str, WorkerRow] = field(default_factory=dict)
    requested: int = 0
    view: View | None = None
    segment: int = 0
    burned: int = 0
    arrivals: dict[str, Report] = field(default_factory=dict)
    arriving_since: float | None = None
    books: Books | None = None
    saves: Saves = field(default_factory=Saves)
    resume: CheckpointRecord | None = None
    yielded: bool = False
    stop: str = ""
    outcome: tuple[Status, str] | None = None
    incarnation: int = 1
    errors: dict[str, tuple[int, ...]] = field(default_factory=dict)
    failures: int = 0
    losses: int = 0
    crashes: int = 0
    formed: bool = True
    broken_s: float | None = None
    paused_since: float | None = None
    paused_s: float = 0.0
    draining: tuple[str, ...] = ()
    timers: dict[str, int] = field(default_factory=dict)
    timers_set: int = 0

    def standing(self, *standings: Standing) -> tuple[str, ...]:
        """Workers that stand so, oldest first."""
        return tuple(name for name, worker in self.workers.items() if worker.standing in standings)

    @property
    def staying(self) -> int:
        """How many workers are there or asked for, without those that will leave."""
        return sum(worker.standing is not Standing.LEAVING for worker in self.workers.values())

    @property
    def members(self) -> tuple[str, ...]:
        """The view's members that are still alive, in rank order."""
        present = self.view.members if self.view else ()
        return tuple(w for w in present if w in self.workers)


def begin(settings: Settings, resume: CheckpointRecord | None = None, incarnation: int = 1) -> Controller:
    """The controller of a run that starts anew (in that `incarnation`), or from a checkpoint."""
    if resume is None:
        return Controller(settings, incarnation=incarnation)
    saves = Saves(count=int(resume.name), published=(resume,)).abandoned()
    return Controller(settings, resume=resume, saves=saves, incarnation=resume.incarnation + 1)


class Turn:
    """One event's turn: the state as it changes, and the commands as they come."""

    def __init__(self, state: Controller, now: float) -> None:
        self.state, self.now = state, now
        self.commands: list[Command] = []

    def set(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def do(self, command: Command) -> None:
        self.commands.append(command)

    def record(self, event: str, **fields: Any) -> None:
        self.do(RecordEvent(event, fields))

    def worker(self, name: str, **changes: Any) -> None:
        workers = {**self.state.workers, name: replace(self.state.workers[name], **changes)}
        self.set(workers=workers)

    def set_timer(self, name: str, delay_s: float) -> None:
        """Only the newest timer of a name counts."""
        number = self.state.timers_set + 1
        self.set(timers_set=number, timers={**self.state.timers, name: number})
        self.do(SetTimer(number, delay_s))

    def clear_timer(self, name: str) -> None:
        self.set(timers={n: i for n, i in self.state.timers.items() if n != name})
