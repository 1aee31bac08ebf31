"""Check whether a configured run can be simulated without training (timing only)."""

from __future__ import annotations

from raysgd_local.config import Config
from raysgd_local.errors import InputError
from raysgd_local.simulation.cluster.cluster_model import ClusterModel

_OPTION = "with --timing-only"


def check_timed(config: Config, cluster: ClusterModel, chaos: str = "") -> None:
    """Raise `InputError` for settings that depend on training, on faults, or on workers that behave differently."""
    if chaos:
        raise InputError("chaos", chaos, f"no faults {_OPTION}", "all workers are simulated as one")
    if config.stop.target is not None:
        raise InputError("stop.target", config.stop.target.metric, f"null {_OPTION}", "nothing is learned")
    algorithm = config.algorithm
    if algorithm.compression is not None:
        raise InputError("algorithm.compression", algorithm.compression, f"null {_OPTION}")
    if algorithm.placement.expand_batch:
        raise InputError("algorithm.placement.expand_batch", True, f"false {_OPTION}")
    if config.workers.batch_scale:
        raise InputError("workers.batch_scale", list(config.workers.batch_scale), f"none {_OPTION}")
    if config.workers.balance and uneven(config.workers.max, cluster):
        hint = "the cluster's speeds differ, and all workers take equal numbers of steps"
        raise InputError("workers.balance", True, f"false {_OPTION}", hint)


def uneven(workers: int, cluster: ClusterModel) -> bool:
    """Whether the first `workers` workers of the cluster differ in speed."""
    return len({cluster.speed(number) for number in range(workers)}) > 1
