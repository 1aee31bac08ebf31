"""The inputs of every worker of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.run_files.storage import Storage
from raysgd_local.transport.listening import Listening


@dataclass(frozen=True)
class Loop:
    """The user's training loop, pickled.

    A worker sets `sys.path` before it unpickles the loop, because a task's module may be in the command's directory.
    """

    pickled: bytes
    sys_path: tuple[str, ...]  # of the process that started the run

    @staticmethod
    def of(loop: Any, config: dict[str, Any] | None, sys_path: tuple[str, ...]) -> Loop:
        """Pickle a loop: a function, called with `config` if it takes an argument, or an object with `train(ctx)`."""
        return Loop(cloudpickle.dumps((loop, config)), sys_path)


@dataclass(frozen=True)
class WorkerSpec:
    """The inputs of every worker of a run."""

    loop: Loop
    seed: int
    storage: Storage  # the run directory
    probe: str  # name of the driver's file, by which a worker checks that it sees the same storage
    algorithm: Algorithm
    use_gpu: bool
    backend: str  # "nccl" or "gloo"
    threads: int  # of torch
    prefix: str  # name of the run in the store
    formation_timeout_s: float  # for connecting the members of a view
    collective_timeout_s: float  # for one collective
    beat_s: float = 0.25  # time between heartbeats
    restricted: bool = False  # a worker has the data of its own chunks only
    claim: str = (
        ""  # the file in the run directory that shows that the run is still this command's; empty: none is
    )
    chaos: bool = False  # faults will be made to happen
    listening: Listening = field(default_factory=Listening)  # address and ports
