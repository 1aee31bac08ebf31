"""What every worker of a run is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.run_files.storage import Storage
from raysgd_local.transport.listening import Listening


@dataclass(frozen=True)
class Loop:
    """The user's training loop, pickled, with where its modules are found.

    It is opened on the worker, after the path is set: a task may live next to where the command was given.
    """

    pickled: bytes
    sys_path: tuple[str, ...]

    @staticmethod
    def of(loop: Any, config: dict[str, Any] | None, sys_path: tuple[str, ...]) -> Loop:
        """`loop` is a function, called with `config` if it takes an argument, or anything with `train(ctx)`."""
        return Loop(cloudpickle.dumps((loop, config)), sys_path)


@dataclass(frozen=True)
class WorkerSpec:
    """The run as a worker needs to know it. `threads` are torch's, `prefix` names the run in the store.

    `restricted`: each worker has its chunks' data alone. `chaos`: faults will be made to happen.
    """

    loop: Loop
    seed: int
    storage: Storage
    probe: str
    algorithm: Algorithm
    use_gpu: bool
    backend: str
    threads: int
    prefix: str
    formation_timeout_s: float
    collective_timeout_s: float
    beat_s: float = 0.25
    restricted: bool = False
    chaos: bool = False
    listening: Listening = field(default_factory=Listening)
