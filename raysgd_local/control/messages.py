"""What the controller and the members say to each other, and what both call things."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from raysgd_local.control.data.deal import Deal, Sources
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.records import EvalRow, PeriodChange


@dataclass(frozen=True)
class View:
    """One membership: its number (never used twice in an incarnation) and its members in rank order."""

    number: int
    members: tuple[str, ...]

    def rank(self, worker: str) -> int:
        return self.members.index(worker)


class LoopPosition(Enum):
    """Where a member's loop stands when it arrives."""

    START = "start"  # at its first `epochs`: wants state
    TRAINING = "training"  # inside an open epoch
    EVALUATING = "evaluating"
    OPENING = "opening"  # wants the next epoch dealt
    FINISHED = "finished"  # the loop ended


@dataclass(frozen=True)
class Report:
    """A member's words on arriving at a boundary.

    `steps` counts the steps of a round that is not committed, `taken` the positions of the deal in them. `samples` is
    the size of the training set that it wants dealt (with `OPENING`). `rounds`, `evaluations` and `changes`
    since its last report, `wire_bytes` what it sent in the newest of them; `chunks` is whose data it has and
    `moved_bytes` what came of it from others, where each has its own alone; `copied` is the newest checkpoint that it
    copied its part for, `damaged` the one that it could not load; `replicated` is None for a worker without state.
    `broken` says what failed, or is empty at a clean boundary.
    """

    worker: str
    view: int
    segment: int
    place: LoopPosition
    replicated: Replicated | None = None
    steps: int = 0
    taken: int = 0
    samples: int = 0
    rounds: tuple[RoundRow, ...] = ()
    evaluations: tuple[EvalRow, ...] = ()
    changes: tuple[PeriodChange, ...] = ()
    wire_bytes: int = 0
    chunks: tuple[int, ...] = ()
    moved_bytes: int = 0
    copied: str = ""
    damaged: str = ""
    leaving: bool = False
    broken: str = ""


@dataclass(frozen=True)
class Save:
    """Copy the state before going on, then write it: as checkpoint `name`, all shards or the donor's alone."""

    name: str
    everyone: bool
    final: bool = False


@dataclass(frozen=True)
class Order:
    """The controller's answer to all members' arrival: what holds from here on. One for all members.

    `replicated` is the resolved state of the run; a member whose own is one round behind is healed with the
    reduced vector that rank `heal` kept. Ranks in `receivers` have no state: they get it from rank `donor`; or
    everyone loads checkpoint `restore`. `align`: the view broke, so the newest round's alignment of local state is
    done again. `closing`: training is over; copy what is to be saved, and come back. `deal` is the open epoch's (None
    while none is open); `paused_s` was spent waiting for workers and is not training time. `sources` says who has
    which chunk's data. `finish` ends the member, saying why.
    """

    view: View
    segment: int
    program: Program
    replicated: Replicated
    incarnation: int = 1
    deal: Deal | None = None
    heal: int | None = None
    donor: int | None = None
    receivers: tuple[int, ...] = ()
    restore: str = ""
    align: bool = False
    save: Save | None = None
    closing: bool = False
    paused_s: float = 0.0
    sources: Sources = ()
    finish: str = ""

    @property
    def number(self) -> tuple[int, int]:
        """Orders follow each other by view, then by segment; each is given once."""
        return self.view.number, self.segment


@dataclass(frozen=True)
class Beat:
    """A worker's sign of life.

    `view` is the newest that it was ordered into, `round_s` how long its newest rounds took (0 before the first),
    `waits_s` how long it has been waiting for the others of its view (0 while it does not).
    """

    worker: str
    view: int = 0
    round_s: float = 0.0
    waits_s: float = 0.0
