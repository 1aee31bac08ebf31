"""The member's state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from raysgd_local.control.control_slots import Control, HeldOut
from raysgd_local.control.data.streams.shards import Shards
from raysgd_local.control.member.events import Command, StreamPosition, Want
from raysgd_local.control.messages import Order
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.records import EvalRow, PeriodChange, replace_fields


@dataclass(frozen=True)
class Adopt:
    """An entry of `Member.todo`: take over the order's resolved state as this member's own."""


@dataclass(frozen=True)
class ProbeProgress:
    """A member's progress in the open round's probe."""

    stage: Literal["", "local", "looking", "done"] = ""  # empty: not begun
    steps: int = 0  # local steps
    samples: int = 0  # in the local steps
    looked: int = 0  # held-out batches whose loss was recorded
    looked_at: int = 0  # samples in these batches
    taken: int = 0  # positions of the deal, in steps and held-out batches
    last: bool = False  # the list of a stream ends behind them


@dataclass(frozen=True)
class Flight:
    """A member's part of the exchange in flight: its steps in the open round until the exchange was launched."""

    steps: int
    samples: int
    taken: int  # positions of the deal
    further: int = 0  # samples in `steps` that a step before counts


@dataclass(frozen=True)
class Member:
    """The state of one member."""

    worker: str  # this worker's name
    order: Order | None = None  # newest order; None before the first
    replicated: Replicated | None = None  # committed state; None while this worker has none
    want: Want = Want.STATE  # the loop's present request
    todo: tuple[Command | Adopt, ...] = ()  # commands left of entering a view, or of closing a round
    steps: int = 0  # uncommitted optimizer steps; while an exchange is in flight, those since its launch
    samples: int = 0  # samples in `steps`
    taken: int = 0  # positions of the deal in `steps`
    further: int = 0  # samples in `steps` that a step before counts: further optimizers' steps on the same batch
    stepping: int = 0  # bits of the optimizers of the newest step; 0: all
    aligned: bool = False  # in this segment all members' loops step the same optimizers together
    reached: StreamPosition | None = None  # in the list of a stream, behind all steps
    rows_split: int = 0  # rows read again, since the last report, of which samples were made that are stepped on
    dataset: int = 0  # size of the training set; 0: the loop loads data of its own, or a stream
    shards: Shards | None = None  # of the stream
    epochs: int = 0  # total that the loop goes through
    epoch: int = 0  # in which the loop is, where rounds go across epochs
    shown: Control | None = None  # slots of the exchange whose mean is being evaluated
    over: bool = False  # the segment is over: arrive at a boundary
    broken: str = ""  # why the view failed; empty while it works
    stop_asked: bool = False  # the loop asked to end training
    leaving: bool = False  # this worker's process will end soon
    copied: str = ""  # newest checkpoint for which this member has copied its shard
    damaged: str = ""  # the checkpoint that this member could not load
    yield_asked: tuple[int, int] = (0, 0)  # newest view and segment to end: may precede the order
    trial: ProbeProgress = ProbeProgress()  # of the open round's probe
    flight: Flight | None = None  # the exchange in flight
    tried_in: tuple[int, int] | None = None  # view and deal of a probe's local stage, to compare with
    held_out: HeldOut = field(default_factory=HeldOut)  # a probe's result, for the next exchange
    segment_round: int = 0  # round at which the segment began
    segment_s: float = 0.0  # training time at which the segment began
    round_s: float = 0.0  # longest of the newest rounds, decaying
    rounds: tuple[RoundRow, ...] = ()  # committed since the last report
    evaluations: tuple[EvalRow, ...] = ()  # since the last report
    changes: tuple[PeriodChange, ...] = ()  # since the last report

    @property
    def rank(self) -> int:
        return self.in_force.view.rank(self.worker)

    @property
    def uncommitted(self) -> Flight:
        """All uncommitted steps of this member, those in flight included."""
        flown = self.flight or Flight(0, 0, 0)
        return Flight(
            self.steps + flown.steps,
            self.samples + flown.samples,
            self.taken + flown.taken,
            self.further + flown.further,
        )

    def used_up(self, taken: int) -> bool:
        """Whether this member's list is used up, counting `taken` positions that are not committed yet."""
        ended = self.reached is not None and self.reached.last
        return ended or self.known.used_up(self.rank, taken)

    @property
    def in_force(self) -> Order:
        """The newest order."""
        if self.order is None:
            raise RuntimeError("no order yet")  # a bug of a shell
        return self.order

    @property
    def loop_epoch(self) -> int:
        """The epoch in which the loop is: its own where rounds go across epochs, otherwise all members'."""
        return self.epoch if self.known.epochs else self.known.epoch

    @property
    def done(self) -> bool:
        """Whether training is over and the loop has gone as far as the others': all evaluate equally often."""
        return bool(self.known.stopped) and self.loop_epoch > self.known.begun

    @property
    def goes_on(self) -> bool:
        """Whether the loop goes on to its next epoch by itself, once its samples of this one are used up."""
        return self.epoch + 1 < self.known.epochs

    @property
    def known(self) -> Replicated:
        """The committed state."""
        if self.replicated is None:
            raise RuntimeError("no state yet")  # a bug of a shell
        return self.replicated


Result = tuple[Member, tuple[Command, ...]]


def reads_again(member: Member) -> Member:
    """Count the rows that a reader has split where it begins anew: what it kept of them is gone."""
    reached = member.reached
    if reached is None:
        return member
    anew = replace_fields(reached, split=0, last=False)
    return replace_fields(member, rows_split=member.rows_split + reached.split, reached=anew)
