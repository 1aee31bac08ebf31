"""What a user says of a simulated cluster, checked."""

from __future__ import annotations

import math

from raysgd_local.algorithms import checks
from raysgd_local.simulation.cluster_model import ClusterModel, Constant

_BYTES_PER_MEGABIT = 125_000


def cluster(step_ms: float, bandwidth_mbps: float | None, latency_ms: float) -> ClusterModel:
    """The cluster of equal workers and links. Raises `InputError` for a value that none has."""
    checks.number("step_ms", step_ms, above=0)
    if bandwidth_mbps is not None:
        checks.number("bandwidth_mbps", bandwidth_mbps, above=0)
    bandwidth = math.inf if bandwidth_mbps is None else bandwidth_mbps * _BYTES_PER_MEGABIT
    return ClusterModel(Constant(step_ms / 1000), latency_s=latency_ms / 1000, bandwidth=bandwidth)
