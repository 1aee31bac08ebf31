"""The controller's settings: fixed when the run begins."""

from __future__ import annotations

from dataclasses import dataclass, field

from raysgd_local.algorithms.placement import ChunkPlacement, DisjointChunks
from raysgd_local.control.replicated.program import Program


@dataclass(frozen=True)
class Limit:
    """A time-out that follows the measured round time: a number of rounds, between a floor and a ceiling.

    >>> limit = Limit(rounds=2, floor_s=1.5, ceiling_s=60)
    >>> limit.seconds(0.1), limit.seconds(4.0), limit.seconds(None)
    (1.5, 8.0, 60)
    """

    rounds: float
    floor_s: float
    ceiling_s: float

    def seconds(self, round_s: float | None, at_least_s: float = 0.0) -> float:
        """The limit where a round takes `round_s`; the ceiling as long as no round was measured."""
        if round_s is None:
            return self.ceiling_s
        return min(self.ceiling_s, max(self.floor_s, self.rounds * round_s, at_least_s))

    def fixed(self, seconds: float | None) -> Limit:
        """The limit that a user set. The ceiling stays, for workers that no round was measured of yet."""
        return self if seconds is None else Limit(0.0, seconds, max(seconds, self.ceiling_s))


@dataclass(frozen=True)
class Timeouts:
    """Every time-out of the protocol; `docs/architecture.md` says why each has its value."""

    start_s: float = (
        300.0  # until the fewest workers are ready; for each worker, from its process's start until ready
    )
    gather_s: float = 20.0  # how long to wait for more, once the fewest workers are ready
    heartbeat: Limit = Limit(2.0, 1.5, 60.0)  # a worker that is silent for longer is given up
    straggler: Limit = Limit(20.0, 120.0, 600.0)  # so is a member that others wait for longer in a collective
    arrival: Limit = Limit(10.0, 60.0, 120.0)  # from the first member's arrival at a boundary until the last's
    beat_s: float = 0.25  # time between two heartbeats of a worker
    pause_s: float = 3600.0  # how long to wait with fewer than the fewest workers
    errors_s: float = 1.0  # after an exception in user code: how long to collect the same one from other workers
    finish_s: float = 120.0  # for the last checkpoint, including attempts that fail
    exit_s: float = 5.0  # for workers to end by themselves


@dataclass(frozen=True)
class CheckpointPolicy:
    """When to write checkpoints and which to keep (`ray.train.CheckpointConfig`'s words)."""

    every_epochs: int | None = 1
    every_s: float | None = None  # of training time
    keep: int | None = 2  # None: all
    score: str | None = None  # the evaluation's metric that `keep` goes by; None: keep the newest
    score_order: str = "max"
    everyone: bool = (
        True  # write every worker's local state, so that as many workers resume exactly; else rank 0's
    )
    last: bool = True  # write one at the end, and the model


@dataclass(frozen=True)
class Settings:
    """Everything that the controller's decisions rest on besides the events."""

    program: Program
    workers_min: int
    workers_max: int  # that may train at a time
    spares: int = 0  # workers kept ready beyond `workers_max`
    seed: int = 0
    placement: ChunkPlacement = field(default_factory=DisjointChunks)
    local_data: bool = False  # a chunk's data is with its holders and nowhere else
    max_failures: int = 0  # tolerated exceptions in user code; -1: no limit
    max_losses: int | None = None  # tolerated losses of processes and nodes; None: no limit
    timeouts: Timeouts = field(default_factory=Timeouts)
    checkpoints: CheckpointPolicy = field(default_factory=CheckpointPolicy)

    @property
    def wanted(self) -> int:
        """How many workers are asked for."""
        return self.workers_max + self.spares
