"""What the controller is told and what it tells its shell to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from raysgd_local.control.messages import Order, Report
from raysgd_local.records import EvalRow, RoundRow

Status = Literal["finished", "failed", "interrupted", "lost", "unplaced"]


# Events.


@dataclass(frozen=True)
class RunStarted:
    """The first event: ask for workers."""


@dataclass(frozen=True)
class WorkerUp:
    """A requested worker's process runs."""

    worker: str
    node: str
    pid: int


@dataclass(frozen=True)
class Arrived:
    """A worker is at a boundary (its first one: it is ready)."""

    report: Report


@dataclass(frozen=True)
class Progress:
    """The first round of a view is committed on this worker: the view has formed."""

    worker: str
    view: int
    round: int
    steps: int


@dataclass(frozen=True)
class SignOfLife:
    """What is known of a worker's life at some moment.

    `age_s` is how long ago its newest beat came, `gap_s` the longest time between two of them lately; see `Beat` for
    the rest.
    """

    worker: str
    age_s: float
    gap_s: float = 0.0
    view: int = 0
    round_s: float = 0.0
    waits_s: float = 0.0


@dataclass(frozen=True)
class Heartbeat:
    """The signs of life of all workers at this moment.

    `awake_s`: for so long the driver itself has run without a break; `hears_s`: so long it also heard somebody.
    """

    signs: tuple[SignOfLife, ...]
    awake_s: float
    hears_s: float


@dataclass(frozen=True)
class Died:
    """A worker's process or node is gone."""

    worker: str
    reason: str


@dataclass(frozen=True)
class DrainNotice:
    """A worker was told that it will be ended soon."""

    worker: str
    reason: str


@dataclass(frozen=True)
class NodesDraining:
    """These nodes will go away soon, and no others; told whenever that changes."""

    nodes: tuple[str, ...]


@dataclass(frozen=True)
class UserError:
    """User code raised on this worker, whose process ends."""

    worker: str
    traceback: str


@dataclass(frozen=True)
class ShardWritten:
    """A worker wrote its part of a checkpoint."""

    name: str
    worker: str
    rank: int
    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class CheckpointPublished:
    """The manifest stands: the checkpoint is good."""

    name: str


@dataclass(frozen=True)
class CheckpointFailed:
    """A part of a checkpoint or its manifest can't be written."""

    name: str
    reason: str


@dataclass(frozen=True)
class StopRequested:
    """Someone wants the run to end at the next boundary, with a checkpoint."""

    reason: str


@dataclass(frozen=True)
class Timer:
    """A timer ran out; one that was set anew since has no effect."""

    id: int


Event = (
    RunStarted
    | WorkerUp
    | Arrived
    | Progress
    | Heartbeat
    | Died
    | DrainNotice
    | NodesDraining
    | UserError
    | ShardWritten
    | CheckpointPublished
    | CheckpointFailed
    | StopRequested
    | Timer
)


# Commands.


@dataclass(frozen=True)
class RequestWorker:
    """Ask for a worker, and keep asking until it is there or released."""

    worker: str


@dataclass(frozen=True)
class KillWorker:
    """End a worker's process, if it still has one, and give its resources back. Don't wait for it."""

    worker: str


@dataclass(frozen=True)
class Form:
    """Give the order to each of these workers."""

    order: Order
    to: tuple[str, ...]


@dataclass(frozen=True)
class Yield:
    """Ask these members to end the segment after a round that all of them agree on."""

    view: int
    segment: int
    to: tuple[str, ...]


@dataclass(frozen=True)
class CutView:
    """Break the collectives of a view on these members, now."""

    view: int
    to: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class PublishManifest:
    """All shards are there: write the manifest, last and atomically."""

    name: str
    manifest: dict[str, Any]


@dataclass(frozen=True)
class DeleteCheckpoint:
    name: str


@dataclass(frozen=True)
class SetTimer:
    id: int
    delay_s: float


@dataclass(frozen=True)
class RecordRounds:
    """Resolved rounds and the evaluations between them, for the tables."""

    rounds: tuple[RoundRow, ...]
    evaluations: tuple[EvalRow, ...]


@dataclass(frozen=True)
class RewindTables:
    """The run goes back to a checkpoint: what came after round `round` did not happen."""

    round: int
    evaluations: int


@dataclass(frozen=True)
class RecordEvent:
    """A line for `events.jsonl`."""

    event: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finish:
    """The run is over. `error` is user code's traceback, with `ranks`, where that ended it."""

    status: Status
    reason: str
    error: str = ""
    ranks: tuple[int, ...] = ()


Record = RecordRounds | RewindTables | RecordEvent | PublishManifest | DeleteCheckpoint
"""Commands that change the run's files and nothing else."""

Command = RequestWorker | KillWorker | Form | Yield | CutView | SetTimer | Record | Finish
