"""The fixed inputs of one worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.run_files.storage import Storage


@dataclass(frozen=True)
class WorkerSetup:
    """The fixed inputs of one worker."""

    worker: str  # its name
    seed: int = 0  # of the run
    storage: Storage | None = None  # of the run; None: nothing is written
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    algorithm: Algorithm = field(default_factory=Algorithm)
    members: int = 1  # most members of a view: slots for so many are allocated once
    restricted: bool = False  # this worker has the data of its own chunks only
    datasets: Mapping[str, Any] = field(default_factory=dict)  # those of the trainer, by name
    claim: str = ""  # the file in `storage` that shows that the run is still this command's; empty: none is
