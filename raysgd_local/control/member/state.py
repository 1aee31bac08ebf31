"""What a member is at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from raysgd_local.control.control_slots import HeldOut
from raysgd_local.control.member.events import Command, Want
from raysgd_local.control.messages import Order
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.records import EvalRow, PeriodChange


@dataclass(frozen=True)
class Adopt:
    """Among what is to be done: from here on what the order resolved is this member's own state."""


@dataclass(frozen=True)
class ProbeProgress:
    """How far a member is in the open round's probe: `steps` local steps over `samples`, `looked` batches looked at
    with `looked_at` samples, and `taken` positions of the deal in all of them.
    """

    stage: Literal["", "local", "looking", "done"] = ""
    steps: int = 0
    samples: int = 0
    looked: int = 0
    looked_at: int = 0
    taken: int = 0


@dataclass(frozen=True)
class Flight:
    """What a member gave to an averaging that travels while it goes on: its steps so far in the open round."""

    steps: int
    samples: int
    taken: int


@dataclass(frozen=True)
class Member:
    """The state of one member, whose loop goes through `epochs` epochs.

    `steps`, `samples`, `taken` belong to the open round and are not committed: optimizer steps, samples, positions
    of the deal. `todo` is what remains of entering a view or of closing a round. `segment_round`, `segment_s`
    are where the segment began, `round_s` is how long the longest of the newest rounds took. `yield_asked` is the
    newest view and segment in which a boundary is asked for: the word may come before the order. `copied` is the
    newest checkpoint that its part was copied for, `damaged` the one that it was to load and could not. `trial` is
    the open round's probe; `tried_in` the view and the deal in which local steps were looked at, to be compared with;
    `held_out` how much there is to say of a probe with the next exchange. While an averaging is in `flight`, `steps`,
    `samples` and `taken` are those since.
    """

    worker: str
    order: Order | None = None
    replicated: Replicated | None = None
    want: Want = Want.STATE
    todo: tuple[Command | Adopt, ...] = ()
    steps: int = 0
    samples: int = 0
    taken: int = 0
    dataset: int = 0
    epochs: int = 0
    over: bool = False
    broken: str = ""
    stop_asked: bool = False
    leaving: bool = False
    copied: str = ""
    damaged: str = ""
    yield_asked: tuple[int, int] = (0, 0)
    trial: ProbeProgress = ProbeProgress()
    flight: Flight | None = None
    tried_in: tuple[int, int] | None = None
    held_out: HeldOut = field(default_factory=HeldOut)
    segment_round: int = 0
    segment_s: float = 0.0
    round_s: float = 0.0
    rounds: tuple[RoundRow, ...] = ()
    evaluations: tuple[EvalRow, ...] = ()
    changes: tuple[PeriodChange, ...] = ()

    @property
    def rank(self) -> int:
        return self.in_force.view.rank(self.worker)

    @property
    def uncommitted(self) -> Flight:
        """All that this member did and did not commit, on its way or not."""
        flown = self.flight or Flight(0, 0, 0)
        return Flight(self.steps + flown.steps, self.samples + flown.samples, self.taken + flown.taken)

    @property
    def in_force(self) -> Order:
        if self.order is None:
            raise RuntimeError("no order yet")  # a bug of a shell
        return self.order

    @property
    def known(self) -> Replicated:
        if self.replicated is None:
            raise RuntimeError("no state yet")  # a bug of a shell
        return self.replicated


Result = tuple[Member, tuple[Command, ...]]
