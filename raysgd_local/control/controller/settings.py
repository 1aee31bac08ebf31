"""The controller's settings: fixed when the run begins."""

from __future__ import annotations

from dataclasses import dataclass, field

from raysgd_local.algorithms.placement import ChunkPlacement, DisjointChunks
from raysgd_local.control.replicated.program import Program


@dataclass(frozen=True)
class Limit:
    """A time-out that follows the measured round time, between a floor and a ceiling.

    >>> limit = Limit(rounds=2, floor_s=1.5, ceiling_s=60)
    >>> limit.seconds(0.1), limit.seconds(4.0), limit.seconds(None)
    (1.5, 8.0, 60)
    """

    rounds: float  # the limit, in round times
    floor_s: float
    ceiling_s: float  # holds, too, until a round was measured

    def seconds(self, round_s: float | None, at_least_s: float = 0.0) -> float:
        """Return the limit for a round time of `round_s`; the ceiling if no round was measured."""
        if round_s is None:
            return self.ceiling_s
        return min(self.ceiling_s, max(self.floor_s, self.rounds * round_s, at_least_s))

    def fixed(self, seconds: float | None) -> Limit:
        """Return the limit that the user set. The ceiling stays, for workers that have no measured round yet."""
        return self if seconds is None else Limit(0.0, seconds, max(seconds, self.ceiling_s))


@dataclass(frozen=True)
class Timeouts:
    """Every time-out of the protocol; `docs/architecture.md` says why each has its value."""

    start_s: float = 300.0  # until the processes of `workers_min` run
    gather_s: float = 20.0  # how long to wait for more workers once `workers_min` are ready
    heartbeat: Limit = Limit(2.0, 1.5, 60.0)  # how long a worker may be silent before it is lost
    straggler: Limit = Limit(20.0, 120.0, 600.0)  # how long members wait for one in a collective before it is lost
    arrival: Limit = Limit(10.0, 60.0, 120.0)  # from the first member's arrival at a boundary until the last's
    beat_s: float = 0.25  # time between two heartbeats of a worker
    pause_s: float = 3600.0  # how long to wait with fewer than `workers_min`
    errors_s: float = 1.0  # after an exception in user code: how long to collect the same one from other workers
    finish_s: float = 120.0  # how long to wait for the last checkpoint, failed attempts included
    exit_s: float = 5.0  # how long workers may take to end by themselves

    @property
    def prepare_s(self) -> float:
        """How long a process may prepare until it is ready, and how long the run waits for `workers_min` to be."""
        return max(self.start_s, self.pause_s)


@dataclass(frozen=True)
class CheckpointPolicy:
    """When to write checkpoints and which to keep (`ray.train.CheckpointConfig`'s words)."""

    every_epochs: int | None = 1  # epochs between checkpoints; None: not by epochs
    every_s: float | None = None  # training time between checkpoints; None: not by time
    keep: int | None = 2  # number of checkpoints; None: all
    score: str | None = None  # metric that ranks checkpoints for `keep`; None: keep the newest
    score_order: str = "max"  # or "min"
    everyone: bool = (
        True  # write every worker's local state, so that as many workers resume exactly; else rank 0's
    )
    last: bool = True  # write one at the end, and the model


@dataclass(frozen=True)
class Settings:
    """The controller's fixed inputs: it decides by these and by its events alone."""

    program: Program  # the method, and the conditions under which training is over
    workers_min: int  # fewest workers with which the run trains
    workers_max: int  # most workers that train at a time
    spares: int = 0  # workers kept ready beyond `workers_max`
    seed: int = 0  # of the deals
    placement: ChunkPlacement = field(default_factory=DisjointChunks)  # of chunks on workers
    interleave: int = 4  # shards of a stream that a worker reads in turn
    shuffle_window: int = 1024  # consecutive rows of a worker's list that are shuffled together; 1: none
    local_data: bool = False  # a chunk's data is with its holders and nowhere else
    max_failures: int = 0  # tolerated exceptions in user code; -1: no limit
    max_losses: int | None = None  # tolerated losses of processes and nodes; None: no limit
    timeouts: Timeouts = field(default_factory=Timeouts)
    checkpoints: CheckpointPolicy = field(default_factory=CheckpointPolicy)

    @property
    def wanted(self) -> int:
        """The number of workers to ask for."""
        return self.workers_max + self.spares
