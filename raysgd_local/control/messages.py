"""The messages between the controller and the members, and the types that both use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from raysgd_local.control.data.deal import Deal, Sources
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.lengths import Lengths
from raysgd_local.control.data.streams.shards import Shards
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.records import EvalRow, PeriodChange


def worker_name(number: int) -> str:
    """The name of a run's worker `number`, counted from 0 in the order of requests.

    >>> worker_name(7), worker_number("w7")
    ('w7', 7)
    """
    return f"w{number}"


def worker_number(name: str) -> int:
    """The inverse of `worker_name`."""
    return int(name.removeprefix("w"))


@dataclass(frozen=True)
class View:
    """One membership."""

    number: int  # rises; no view of an incarnation has the number of another one
    members: tuple[str, ...]  # worker names, in rank order

    def rank(self, worker: str) -> int:
        return self.members.index(worker)


class LoopPosition(Enum):
    """Where a member's loop stands when the member arrives at a boundary."""

    START = "start"  # at its first `epochs`: it needs state
    TRAINING = "training"  # inside an open epoch
    EVALUATING = "evaluating"
    OPENING = "opening"  # the next epoch must be dealt
    FINISHED = "finished"  # the loop ended


@dataclass(frozen=True)
class Report:
    """A member tells the controller that it has reached a boundary."""

    worker: str
    view: int  # 0: not a member yet
    segment: int
    place: LoopPosition
    replicated: Replicated | None = None  # None: this worker has no state
    steps: int = 0  # local steps since the last commit
    taken: int = 0  # positions of the deal consumed by `steps`, not committed
    samples: int = 0  # size of the training set; the controller deals it when all report `OPENING`
    shards: Shards | None = None  # of a stream, in place of `samples`
    source: str = ""  # names of the source that this member reads (`Shards.names`)
    found: Lengths = ()  # of its shards that this member has read; bounds for those that it is reading
    split: int = 0  # rows after the consumed ones of which samples of its steps have a part
    rows_split: int = 0  # such rows where this member itself began to read anew, since the last report
    epochs: int = 0  # total that the loop goes through
    epoch: int = 0  # in which this loop is, where rounds go across epochs; if it evaluates, the one after
    rounds: tuple[RoundRow, ...] = ()  # committed since this member's last report
    evaluations: tuple[EvalRow, ...] = ()  # since this member's last report
    changes: tuple[PeriodChange, ...] = ()  # since this member's last report
    wire_bytes: int = 0  # bytes sent in the newest of `rounds`
    chunks: tuple[int, ...] = ()  # chunks whose data this member holds, where data is local to workers
    moved_bytes: int = 0  # bytes of chunks received from other members since the last report
    copied: str = ""  # newest checkpoint for which this member has copied its shard
    damaged: str = ""  # the checkpoint that this member could not load
    leaving: bool = False  # this process was told to end (SIGTERM)
    stops: bool = False  # the loop asked to end training
    broken: str = ""  # why the view failed; empty at a clean boundary


@dataclass(frozen=True)
class Save:
    """Copy the state before training goes on, then write the copy as a checkpoint."""

    name: str  # of the checkpoint
    everyone: bool  # write every member's shard, not rank 0's alone
    final: bool = False  # the run's last checkpoint: write the model, too


# How the members of a view come to the resolved state: an order's `start` is one of three kinds.


@dataclass(frozen=True)
class FreshStart:
    """The run begins: rank 0 sends its initial state to all others."""

    receivers: tuple[int, ...]  # ranks


@dataclass(frozen=True)
class CheckpointStart:
    """Every member loads this checkpoint."""

    checkpoint: str


@dataclass(frozen=True)
class Continuation:
    """Members keep their state; rank `lead`, which committed the newest round, helps those that lack something."""

    lead: int = 0  # rank; without effect unless `heal` or `receivers`
    heal: bool = False  # send the newest round's reduced vector: some member missed that round
    receivers: tuple[int, ...] = ()  # ranks without state: they receive the lead's
    align: bool = False  # the view broke: align local state again as the newest round demands


Start = FreshStart | CheckpointStart | Continuation


@dataclass(frozen=True)
class Order:
    """The controller answers the arrival of all members: one order, the same for all."""

    view: View
    segment: int  # counts the orders of one view, from 1
    program: Program
    replicated: Replicated  # the resolved state of the run
    incarnation: int = 1
    start: Start = Continuation()  # how each member comes to `replicated`
    deal: Deal | StreamDeal | None = None  # of the open epoch; None while no epoch is open
    found: Lengths = ()  # lengths that members have found out since the deal was made
    measure: tuple[tuple[str, Lengths], ...] = ()  # what workers have to measure, before they arrive again
    measured: str = ""  # names of the source whose shards they are
    sources: Sources = ()  # for each chunk the workers that hold its data, where data is local to workers
    save: Save | None = None
    closing: bool = False  # training is over: copy the state for `save`, then arrive again
    paused_s: float = 0.0  # time that the run was paused before this order; it is no training time
    finish: str = ""  # why this member must end; empty: it trains on

    @property
    def number(self) -> tuple[int, int]:
        """View, then segment: rises from order to order. Each number is used once."""
        return self.view.number, self.segment

    @property
    def restore(self) -> str:
        """The checkpoint that every member loads; empty where members keep or receive their state."""
        return self.start.checkpoint if isinstance(self.start, CheckpointStart) else ""


@dataclass(frozen=True)
class Evaluating:
    """A member takes part in an evaluation. Rounds need no such record: only an evaluation can be one rank's alone."""

    round: int  # committed by the member
    evaluations: int  # completed by the member
    since_s: float = 0.0  # how long it has been in it


@dataclass(frozen=True)
class Beat:
    """A worker's heartbeat."""

    worker: str
    view: int = 0  # newest view that the worker was ordered into
    round_s: float = 0.0  # duration of the longest of its newest rounds; 0 before the first
    waits_s: float = 0.0  # how long it has been waiting in a collective; 0: it does not wait
    evaluating: Evaluating | None = None  # the evaluation that it takes part in
