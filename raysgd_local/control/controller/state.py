"""The controller's state, and the turn in which one event changes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.controller.checkpoints import CheckpointRecord, Saves
from raysgd_local.control.controller.events import Command, Finish, RecordEvent, SetTimer, Status
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.controller.transitions import PHASES, STANDINGS, Phase, Standing, check
from raysgd_local.control.messages import LoopPosition, Report, View, worker_name
from raysgd_local.control.run_events import EventName


@dataclass(frozen=True)
class WorkerRow:
    """One worker, as the controller knows it."""

    standing: Standing = Standing.REQUESTED
    node: str = ""
    pid: int = 0
    up_s: float = 0.0  # when its process came up
    epochs: int = 0  # total that its loop goes through, as it said when it was ready


@dataclass(frozen=True)
class Segment:
    """The newest order's view and segment, which last until all members have arrived again."""

    view: View
    number: int  # counts the orders of this view, from 1
    books: Books  # the resolved state, as the order said it
    arrivals: dict[str, Report] = field(default_factory=dict)  # by worker: members that reached the boundary
    yielded: bool = False  # members were asked to end the segment
    broken: bool = False  # this view broke: its number is never used again
    formed: bool = False  # a member has committed a round of this view
    measuring: bool = False  # members measure shards before they arrive again

    @property
    def only_ended(self) -> bool:
        """Whether no member has arrived but those whose loop has ended."""
        return all(report.place is LoopPosition.FINISHED for report in self.arrivals.values())


@dataclass(frozen=True)
class Outcome:
    """The end of the run."""

    status: Status
    reason: str


# The stages: one for each phase, with the data that it has.


@dataclass(frozen=True)
class Starting:
    """There is no view yet. The controller waits for workers."""

    phase: ClassVar[Phase] = Phase.STARTING
    segment: ClassVar[None] = None


@dataclass(frozen=True)
class Running:
    """Members train, or arrive at a boundary."""

    segment: Segment
    gathering_since: float | None = None  # when the first member arrived whose loop goes on
    phase: ClassVar[Phase] = Phase.RUNNING


@dataclass(frozen=True)
class Resolving:
    """The view is broken. The controller waits for the survivors' reports."""

    segment: Segment
    gathering_since: float  # when it broke
    phase: ClassVar[Phase] = Phase.RESOLVING


@dataclass(frozen=True)
class Restoring:
    """No member has the state. The controller waits for workers that will load a checkpoint, or begin afresh."""

    segment: Segment  # the one that was lost
    phase: ClassVar[Phase] = Phase.RESTORING


@dataclass(frozen=True)
class Paused:
    """There are too few workers. The members stay at the boundary."""

    segment: Segment
    since: float
    phase: ClassVar[Phase] = Phase.PAUSED


@dataclass(frozen=True)
class Finishing:
    """Everything is written. Members end by themselves, and the run ends with the last of them."""

    segment: Segment
    outcome: Outcome
    phase: ClassVar[Phase] = Phase.FINISHING


@dataclass(frozen=True)
class Ended:
    """The run is over. Events have no effect any more."""

    segment: Segment | None  # the last one, if the run ever had a view
    phase: ClassVar[Phase] = Phase.ENDED


Stage = Starting | Running | Resolving | Restoring | Paused | Finishing | Ended


@dataclass(frozen=True)
class Controller:
    """The controller's whole state; nothing in it is a handle, a tensor or a path."""

    settings: Settings
    stage: Stage = Starting()
    workers: dict[str, WorkerRow] = field(default_factory=dict)  # by name, oldest first
    requested: int = 0  # workers asked for so far; names the next one
    saves: Saves = field(default_factory=Saves)
    resume: CheckpointRecord | None = None  # where this incarnation began; None: with fresh state
    incarnation: int = 1
    stop: str = ""  # why the run is asked to end at the next boundary
    outcome: Outcome | None = None  # training is over: members stay until the last checkpoint stands
    errors: dict[str, tuple[int, ...]] = field(default_factory=dict)  # by traceback: ranks that raised lately
    failures: int = 0  # exceptions in user code so far
    workers_lost: int = 0  # processes lost so far
    crashes: int = 0  # processes lost since a view formed
    highest_round: int = 0  # the newest round that any member is known to have committed, in any incarnation
    fruitless: int = 0  # workers lost since `highest_round` rose
    breaks: int = 0  # views in a row, of the same members, that broke before their first round
    preparing: bool = False  # workers may prepare for longer than it takes to place them
    broken_s: float | None = None  # when the view broke; None once a view has formed
    paused_s: float = 0.0  # how long the run was paused before the next order
    draining: tuple[str, ...] = ()  # nodes that will go away
    timers: dict[str, int] = field(default_factory=dict)  # by name: the number of the newest one set
    timers_set: int = 0  # numbers the next timer

    @property
    def phase(self) -> Phase:
        return self.stage.phase

    @property
    def segment(self) -> Segment | None:
        """The newest order's segment; None before the first view."""
        return self.stage.segment

    @property
    def view(self) -> View | None:
        return None if self.segment is None else self.segment.view

    @property
    def books(self) -> Books | None:
        return None if self.segment is None else self.segment.books

    @property
    def formed(self) -> bool:
        """Whether the present view has committed a round; true before the first view."""
        return self.segment is None or self.segment.formed

    @property
    def members(self) -> tuple[str, ...]:
        """The live members of the view, in rank order."""
        present = self.view.members if self.view else ()
        return tuple(worker for worker in present if worker in self.workers)

    @property
    def reports(self) -> tuple[Report, ...]:
        """The reports of members that have arrived, in rank order."""
        arrivals = self.segment.arrivals if self.segment else {}
        return tuple(arrivals[worker] for worker in self.members if worker in arrivals)

    @property
    def phase_shown(self) -> str:
        """The phase for live progress: `preparing` while the run waits for processes that run already."""
        waits = self.phase in (Phase.STARTING, Phase.RESTORING)
        prepares = waits and bool(self.standing(Standing.UP)) and not self.standing(Standing.REQUESTED)
        return "preparing" if prepares else self.phase.value

    def standing(self, *standings: Standing) -> tuple[str, ...]:
        """Return the workers of these standings, oldest first."""
        return tuple(name for name, worker in self.workers.items() if worker.standing in standings)

    @property
    def staying(self) -> int:
        """The number of workers, requested ones included, without those that will leave."""
        return sum(worker.standing is not Standing.LEAVING for worker in self.workers.values())


def begin(
    settings: Settings,
    resume: CheckpointRecord | None = None,
    incarnation: int = 1,
    older: Iterable[CheckpointRecord] = (),
    taken: int = 0,
) -> Controller:
    """Return the controller of a run that starts anew (in that `incarnation`), or from a checkpoint.

    `older` are the run's other checkpoints, oldest first. New checkpoints are numbered from `taken` at least.
    """
    if resume is None:
        return Controller(settings, incarnation=incarnation, saves=Saves(count=taken))
    saves = Saves(count=max(taken, int(resume.name)), published=(*older, resume)).abandoned()
    return Controller(settings, resume=resume, saves=saves, incarnation=resume.incarnation + 1)


class Turn:
    """One event's turn: the state as it changes, and the commands as they come."""

    def __init__(self, state: Controller, now: float) -> None:
        self.state, self.now = state, now
        self.commands: list[Command] = []

    def do(self, command: Command) -> None:
        self.commands.append(command)

    def record(self, event: EventName, **fields: Any) -> None:
        """Write a line into `events.jsonl`."""
        self.do(RecordEvent(event.value, fields))

    def set(self, **changes: Any) -> None:
        """Change fields that have no method of their own below."""
        self.state = replace(self.state, **changes)

    # The phase.

    def enter(self, stage: Stage) -> None:
        """Enter another phase. Nothing else changes the phase."""
        check(PHASES, self.state.phase, stage.phase)
        self.set(stage=stage)

    def update(self, segment: Segment) -> None:
        """Change the segment, within the same phase."""
        stage = self.state.stage
        if not isinstance(stage, Starting):
            self.set(stage=replace(stage, segment=segment))

    def finish(self, status: Status, reason: str, error: str = "", ranks: tuple[int, ...] = ()) -> None:
        """End the run. `error` is user code's traceback and `ranks` are those that raised it, if that ended the run."""
        if self.state.phase is not Phase.ENDED:
            self.enter(Ended(self.state.segment))
        self.do(Finish(status, reason, error, ranks))

    # Workers.

    def hire(self) -> str:
        """Add a requested worker, under a name that was never used. Return the name."""
        name = worker_name(self.state.requested)
        self.set(requested=self.state.requested + 1, workers={**self.state.workers, name: WorkerRow()})
        return name

    def stand(self, worker: str, standing: Standing, **facts: Any) -> None:
        """Give a worker another standing. Nothing else changes it. `facts` are other fields of its row."""
        known = self.state.workers[worker]
        check(STANDINGS, known.standing, standing)
        self.set(workers={**self.state.workers, worker: replace(known, standing=standing, **facts)})

    def remove(self, workers: Iterable[str]) -> None:
        """Remove workers that are gone, and their reports."""
        gone = set(workers)
        for worker in gone:
            check(STANDINGS, self.state.workers[worker].standing, Standing.GONE)
        self.set(workers={name: row for name, row in self.state.workers.items() if name not in gone})
        segment = self.state.segment
        if segment is not None and gone & segment.arrivals.keys():
            arrivals = {name: report for name, report in segment.arrivals.items() if name not in gone}
            self.update(replace(segment, arrivals=arrivals))

    # Timers.

    def set_timer(self, name: str, delay_s: float) -> None:
        """Set a timer. It replaces an earlier one of the same name."""
        number = self.state.timers_set + 1
        self.set(timers_set=number, timers={**self.state.timers, name: number})
        self.do(SetTimer(number, delay_s))

    def clear_timer(self, name: str) -> None:
        self.set(timers={n: i for n, i in self.state.timers.items() if n != name})
