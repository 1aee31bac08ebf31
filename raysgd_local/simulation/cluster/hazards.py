"""Draw failures from a cluster's rates, as a schedule of faults."""

from __future__ import annotations

import numpy as np

from raysgd_local.faults.language import Fault, When
from raysgd_local.simulation.cluster.cluster_model import Failures

_STREAM = 0xFA17  # makes these draws independent of others with the same seed


def drawn_faults(failures: Failures, workers: int, horizon_s: float, seed: int) -> tuple[Fault, ...]:
    """Draw the deaths and preemptions of a fleet of `workers` within `horizon_s`, in order of time.

    They are Poisson processes. A lost worker is assumed to be replaced, so the fleet's rate is constant. The
    rank is taken modulo the number of members at that time.

    >>> failures = Failures(deaths_per_hour=1, preemptions_per_hour=1, notice_s=120)
    >>> [str(fault) for fault in drawn_faults(failures, workers=2, horizon_s=3600, seed=5)]
    ['drain:1x120@595.189s', 'kill:1@1913.3s', 'kill:1@3516.05s']
    """
    random = np.random.default_rng((seed, _STREAM))
    fleet_hours = workers * horizon_s / 3600
    deaths = [
        Fault("kill", When(at_s), random.integers(workers).item(), drawn=True)
        for at_s in _times(random, failures.deaths_per_hour * fleet_hours, horizon_s)
    ]
    preemptions = [
        Fault("drain", When(at_s), random.integers(workers).item(), failures.notice_s, drawn=True)
        for at_s in _times(random, failures.preemptions_per_hour * fleet_hours, horizon_s)
    ]
    return tuple(sorted(deaths + preemptions, key=lambda fault: fault.when.seconds or 0.0))


def _times(random: np.random.Generator, expected: float, horizon_s: float) -> list[float]:
    """Draw the times of a Poisson process: given their number, they are uniformly distributed.

    Rounded to the digits that are written, so that a schedule reads back equal.
    """
    return [float(f"{at_s:g}") for at_s in random.uniform(0.0, horizon_s, random.poisson(expected))]
