"""What the controller is told once, when the run begins."""

from __future__ import annotations

from dataclasses import dataclass, field

from raysgd_local.algorithms.placement import ChunkPlacement, DisjointChunks
from raysgd_local.control.replicated.program import Program


@dataclass(frozen=True)
class Limit:
    """A limit of waiting that follows the measured round time: so many rounds, between a floor and a ceiling.

    >>> limit = Limit(rounds=2, floor_s=1.5, ceiling_s=60)
    >>> limit.seconds(0.1), limit.seconds(4.0), limit.seconds(None)
    (1.5, 8.0, 60)
    """

    rounds: float
    floor_s: float
    ceiling_s: float

    def seconds(self, round_s: float | None, at_least_s: float = 0.0) -> float:
        """The limit where a round takes `round_s`; the ceiling as long as that is not known."""
        if round_s is None:
            return self.ceiling_s
        return min(self.ceiling_s, max(self.floor_s, self.rounds * round_s, at_least_s))

    def fixed(self, seconds: float | None) -> Limit:
        """The limit that a user set; the ceiling stays for what has no measure yet."""
        return self if seconds is None else Limit(0.0, seconds, max(seconds, self.ceiling_s))


@dataclass(frozen=True)
class Timeouts:
    """Every time-out of the protocol; `docs/architecture.md` says why each is what it is.

    `start_s`: how long to wait for the fewest workers that a run may begin with, and for each worker from its
    process's start until it is ready. `gather_s`: how long, once the fewest are there, to wait for more.
    `heartbeat`: a worker silent for longer is given up. `straggler`: so is one for which others wait longer in a
    collective. `arrival`: from the first member's arrival at a boundary until the last's. `pause_s`: how long to
    wait below the fewest workers. `errors_s`: after an exception in user code, how long to wait for the same one
    from others. `finish_s`: how long the last checkpoint may take, attempts that fail included. `exit_s`: how long
    workers may take to end by themselves. `beat_s`: how often a worker shows that it lives.
    """

    start_s: float = 300.0
    gather_s: float = 20.0
    heartbeat: Limit = Limit(2.0, 1.5, 60.0)
    straggler: Limit = Limit(20.0, 120.0, 600.0)
    arrival: Limit = Limit(10.0, 60.0, 120.0)
    beat_s: float = 0.25
    pause_s: float = 3600.0
    errors_s: float = 1.0
    finish_s: float = 120.0
    exit_s: float = 5.0


@dataclass(frozen=True)
class CheckpointPolicy:
    """When to write checkpoints and which to keep (`ray.train.CheckpointConfig`'s words).

    `everyone`: each worker's local state (optimizer, generators) is written, so that a resume with as many workers
    is exact; otherwise rank 0's alone. `keep` of None keeps all; `score` names a metric of the evaluation. `last`:
    one is written at the end, and the model.
    """

    every_epochs: int | None = 1
    every_s: float | None = None
    keep: int | None = 2
    score: str | None = None
    score_order: str = "max"
    everyone: bool = True
    last: bool = True


@dataclass(frozen=True)
class Settings:
    """Everything that the controller's decisions rest on besides what happens.

    `max_failures` counts exceptions in user code (-1: no limit), `max_losses` processes and nodes (None: no limit).
    `spares` workers more than may train are kept ready. `restricted`: a chunk's data is with its holders and nowhere
    else.
    """

    program: Program
    workers_min: int
    workers_max: int
    spares: int = 0
    seed: int = 0
    placement: ChunkPlacement = field(default_factory=DisjointChunks)
    restricted: bool = False
    max_failures: int = 0
    max_losses: int | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    checkpoints: CheckpointPolicy = field(default_factory=CheckpointPolicy)

    @property
    def wanted(self) -> int:
        """How many workers are asked for."""
        return self.workers_max + self.spares
