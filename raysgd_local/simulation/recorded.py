"""A cluster as a run met it: all that the run's own table tells, its links excepted."""

from __future__ import annotations

import numpy as np

from raysgd_local import run_directory
from raysgd_local.simulation.cluster_model import ClusterModel
from raysgd_local.simulation.step_times import Measured


def cluster_of(run: str) -> ClusterModel:
    """Step times, what a round costs beside steps and link, and the warm-up, from a run's `rounds.csv`.

    Links are the default's: what a run waited for its link depends on what it sent. Raises `InputError` where there
    is no such run, or it took no step.
    """
    steps = Measured(run)
    rows = run_directory.load(run).rounds
    elapsed_s = rows["elapsed_s"].to_numpy(float)
    known_s = (rows["compute_s"] + rows["wait_s"] + rows["sync_s"]).to_numpy(float)
    beside_s = np.diff(elapsed_s) - known_s[1:]
    round_s = max(0.0, float(beside_s.mean())) if len(beside_s) else 0.0
    usual_s = steps.mean_s * float(rows["steps"].iloc[0] / rows["workers"].iloc[0])
    warmup_s = max(0.0, float(elapsed_s[0] - rows["sync_s"].iloc[0]) - usual_s)
    return ClusterModel(steps=steps, round_ms=1000 * round_s, warmup_s=warmup_s)
