"""What the controller is told once, when the run begins."""

from __future__ import annotations

from dataclasses import dataclass, field

from raysgd_local.algorithms.placement import DisjointChunks, RedundantChunks
from raysgd_local.control.program import Program


@dataclass(frozen=True)
class Timeouts:
    """Every time-out of the protocol, in seconds; `docs/architecture.md` says why each is what it is.

    `start_s`: how long to wait for the fewest workers that a run may begin with. `gather_s`: how long, once these
    are there, to wait for more. `arrival_s`: from the first member's arrival at a boundary until the last's.
    `heartbeat_s`: a worker silent for longer is given up. `pause_s`: how long to wait below the fewest workers.
    `errors_s`: after an exception in user code, how long to wait for the same one from others. `finish_s`: how long
    the last checkpoint may take.
    """

    start_s: float = 300.0
    gather_s: float = 20.0
    arrival_s: float = 120.0
    heartbeat_s: float = 60.0
    pause_s: float = 3600.0
    errors_s: float = 1.0
    finish_s: float = 120.0


@dataclass(frozen=True)
class CheckpointPolicy:
    """When to write checkpoints and which to keep (`ray.train.CheckpointConfig`'s words).

    `everyone`: each worker's local state (optimizer, generators) is written, so that a resume with as many workers
    is exact; otherwise rank 0's alone. `keep` of None keeps all; `score` names a metric of the evaluation.
    """

    every_epochs: int | None = 1
    every_s: float | None = None
    keep: int | None = 2
    score: str | None = None
    score_order: str = "max"
    everyone: bool = True


@dataclass(frozen=True)
class Settings:
    """Everything that the controller's decisions rest on besides what happens.

    `max_failures` counts exceptions in user code (-1: no limit), `max_losses` processes and nodes (None: no limit).
    `restricted`: only a chunk's holders can read it.
    """

    program: Program
    workers_min: int
    workers_max: int
    seed: int = 0
    placement: DisjointChunks | RedundantChunks = field(default_factory=DisjointChunks)
    restricted: bool = False
    max_failures: int = 0
    max_losses: int | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    checkpoints: CheckpointPolicy = field(default_factory=CheckpointPolicy)
