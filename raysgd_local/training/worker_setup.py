"""Where one worker runs, and with what method."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.run_files.storage import Storage


@dataclass(frozen=True)
class WorkerSetup:
    """Where one worker runs: its name, the run's seed, storage (None: nothing is written), device and method.

    `members` is how many the run may have: room for them is made once. `restricted`: it has its chunks' data alone.
    """

    worker: str
    seed: int = 0
    storage: Storage | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    algorithm: Algorithm = field(default_factory=Algorithm)
    members: int = 1
    restricted: bool = False
