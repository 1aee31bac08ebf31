"""Elastic distributed training on Ray with local-update SGD: average every τ steps, and let τ adapt.

The public names are below; tasks are in `raysgd_local.tasks`. Each name is imported when it is first used, so
importing this package loads neither Ray nor torch.

>>> import raysgd_local
>>> raysgd_local.Algorithm(schedule=raysgd_local.FixedPeriod(tau=8)).schedule
FixedPeriod(tau=8)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysgd_local.algorithms.algorithm import Algorithm
    from raysgd_local.algorithms.averaging import Blocks, Elastic, Gossip, Mean
    from raysgd_local.algorithms.compression import Half, Int8, RandomK, Sign, TopK
    from raysgd_local.algorithms.learning_rate import LearningRate
    from raysgd_local.algorithms.outer import BlockMomentum, MaxChange, OuterOptimizer, SlowMo
    from raysgd_local.algorithms.placement import DisjointChunks, LabelSkewed, RedundantChunks
    from raysgd_local.algorithms.schedules import (
        QSR,
        AdaComm,
        AtEpoch,
        AtFirstDecay,
        AtLoss,
        Delayed,
        Dynamic,
        EveryStep,
        FixedPeriod,
        Hierarchical,
        LupaLinear,
        LupaLoss,
        Once,
        Stability,
        Switch,
    )
    from raysgd_local.algorithms.weights import FedNova, Samples
    from raysgd_local.config import Checkpoints, Network, Stop, Target, Timeouts
    from raysgd_local.errors import (
        CheckpointError,
        InputError,
        RaySGDError,
        RunLostError,
        ShardError,
        TransportError,
        UsageError,
        UserCodeError,
    )
    from raysgd_local.run_files.observer import RunObserver
    from raysgd_local.tasks import Task
    from raysgd_local.trainer import LocalSGDTrainer
    from raysgd_local.training.context import TrainContext
    from raysgd_local.training.current import get_context

    __version__: str

__all__ = [
    "QSR",
    "AdaComm",
    "Algorithm",
    "AtEpoch",
    "AtFirstDecay",
    "AtLoss",
    "BlockMomentum",
    "Blocks",
    "CheckpointError",
    "Checkpoints",
    "Delayed",
    "DisjointChunks",
    "Dynamic",
    "Elastic",
    "EveryStep",
    "FedNova",
    "FixedPeriod",
    "Gossip",
    "Half",
    "Hierarchical",
    "InputError",
    "Int8",
    "LabelSkewed",
    "LearningRate",
    "LocalSGDTrainer",
    "LupaLinear",
    "LupaLoss",
    "MaxChange",
    "Mean",
    "Network",
    "Once",
    "OuterOptimizer",
    "RandomK",
    "RaySGDError",
    "RedundantChunks",
    "RunLostError",
    "RunObserver",
    "Samples",
    "ShardError",
    "Sign",
    "SlowMo",
    "Stability",
    "Stop",
    "Switch",
    "Target",
    "Task",
    "Timeouts",
    "TopK",
    "TrainContext",
    "TransportError",
    "UsageError",
    "UserCodeError",
    "__version__",
    "get_context",
]

_HOMES = {
    "algorithms.algorithm": ("Algorithm",),
    "algorithms.averaging": ("Blocks", "Elastic", "Gossip", "Mean"),
    "algorithms.compression": ("Half", "Int8", "RandomK", "Sign", "TopK"),
    "algorithms.learning_rate": ("LearningRate",),
    "algorithms.outer": ("BlockMomentum", "MaxChange", "OuterOptimizer", "SlowMo"),
    "algorithms.placement": ("DisjointChunks", "LabelSkewed", "RedundantChunks"),
    "algorithms.weights": ("FedNova", "Samples"),
    "algorithms.schedules": (
        "QSR",
        "AdaComm",
        "AtEpoch",
        "AtFirstDecay",
        "AtLoss",
        "Delayed",
        "Dynamic",
        "EveryStep",
        "FixedPeriod",
        "Hierarchical",
        "LupaLinear",
        "LupaLoss",
        "Once",
        "Stability",
        "Switch",
    ),
    "config": ("Checkpoints", "Network", "Stop", "Target", "Timeouts"),
    "errors": (
        "CheckpointError",
        "InputError",
        "RaySGDError",
        "RunLostError",
        "ShardError",
        "TransportError",
        "UsageError",
        "UserCodeError",
    ),
    "run_files.observer": ("RunObserver",),
    "training.context": ("TrainContext",),
    "training.current": ("get_context",),
    "tasks": ("Task",),
    "trainer": ("LocalSGDTrainer",),
}
_HOME = {name: f"raysgd_local.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("raysgd-local")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
