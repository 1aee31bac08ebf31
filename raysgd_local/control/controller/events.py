"""Events, which a shell feeds to the controller, and commands, with which the controller answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from raysgd_local.control.messages import Evaluating, Order, Report
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.records import EvalRow

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
    """One worker's heartbeats up to now."""

    worker: str
    age_s: float  # time since its newest heartbeat
    gap_s: float = 0.0  # longest recent gap between two of them
    view: int = 0  # as in `Beat`
    round_s: float = 0.0  # as in `Beat`
    waits_s: float = 0.0  # as in `Beat`, up to now
    evaluating: Evaluating | None = None  # as in `Beat`, up to now


@dataclass(frozen=True)
class Heartbeat:
    """The signs of life of all workers at this moment."""

    signs: tuple[SignOfLife, ...]
    awake_s: float  # how long the driver has run without standing still
    hears_s: float  # how long it has run so, and heard some worker


@dataclass(frozen=True)
class Died:
    """A worker's process or node is gone."""

    worker: str
    reason: str


@dataclass(frozen=True)
class DrainNotice:
    """A worker was told that its process will end soon."""

    worker: str
    reason: str


@dataclass(frozen=True)
class NodesDraining:
    """The list of nodes that will end soon has changed."""

    nodes: tuple[str, ...]


@dataclass(frozen=True)
class UserError:
    """User code raised on this worker; its process ends."""

    worker: str
    traceback: str


@dataclass(frozen=True)
class ShardWritten:
    """A worker wrote its shard of a checkpoint."""

    name: str
    worker: str
    rank: int
    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class CheckpointPublished:
    """The manifest is written: the checkpoint is complete."""

    name: str


@dataclass(frozen=True)
class CheckpointFailed:
    """A shard of a checkpoint, or its manifest, can't be written."""

    name: str
    reason: str


@dataclass(frozen=True)
class StopRequested:
    """End the run at the next boundary, with a checkpoint."""

    reason: str


@dataclass(frozen=True)
class Timer:
    """A timer expired."""

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
    """Ask these members to end the segment. They agree on the round after which it ends."""

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
    """All shards are written: write the manifest, atomically."""

    name: str
    manifest: dict[str, Any]


@dataclass(frozen=True)
class DeleteCheckpoint:
    """Delete a checkpoint, complete or not."""

    name: str


@dataclass(frozen=True)
class SetTimer:
    """Send `Timer(id)` after `delay_s`."""

    id: int
    delay_s: float


@dataclass(frozen=True)
class RecordRounds:
    """Append resolved rounds, and the evaluations between them, to the tables."""

    rounds: tuple[RoundRow, ...]
    evaluations: tuple[EvalRow, ...]


@dataclass(frozen=True)
class RewindTables:
    """The run goes back to a checkpoint: keep the tables' rows up to `round`, and the first `evaluations`."""

    round: int
    evaluations: int


@dataclass(frozen=True)
class RecordEvent:
    """Append a line to `events.jsonl`."""

    event: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finish:
    """End the run. `error` is user code's traceback and `ranks` are those that raised it, if that ended the run."""

    status: Status
    reason: str
    error: str = ""
    ranks: tuple[int, ...] = ()


Record = RecordRounds | RewindTables | RecordEvent | PublishManifest | DeleteCheckpoint
"""Commands that change the run's files and nothing else."""

Command = RequestWorker | KillWorker | Form | Yield | CutView | SetTimer | Record | Finish


def goes_on(command: Command) -> bool:
    """Whether this command shows that a resumed run goes on: all members have loaded the checkpoint."""
    match command:
        case RecordRounds(rounds, evaluations):
            return bool(rounds or evaluations)
        case Form(order):
            return order.save is not None
    return False
