"""Estimate a cluster model from a run's `rounds.csv`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raysgd_local.run_files import reader
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.cluster.step_times import Measured

if TYPE_CHECKING:
    import pandas as pd


def cluster_of(run: str) -> ClusterModel:
    """Estimate step times, links, further costs of a round, and warm-up from a run's `rounds.csv`.

    The time of an averaging is attributed to the latency of a ring's messages, because a table with one message size
    can't separate latency from bandwidth. So the estimate holds only for runs with as many workers and bytes. Raises
    `InputError` if there is no such run, or it took no step.
    """
    steps = Measured(run)
    rows = reader.load(run).rounds
    elapsed_s = rows["elapsed_s"].to_numpy(float)
    known_s = (rows["compute_s"] + rows["wait_s"] + rows["sync_s"]).to_numpy(float)
    beside_s = np.diff(elapsed_s) - known_s[1:]
    round_s = max(0.0, float(beside_s.mean())) if len(beside_s) else 0.0
    usual_s = steps.mean_s * float(rows["steps"].iloc[0] / rows["workers"].iloc[0])
    warmup_s = max(0.0, float(elapsed_s[0] - rows["sync_s"].iloc[0]) - usual_s)
    return ClusterModel(
        steps=steps, latency_ms=1000 * _message_s(rows), round_ms=1000 * round_s, warmup_s=warmup_s
    )


def _message_s(rows: pd.DataFrame) -> float:
    """Return the mean time of one of a ring's 2(m − 1) messages, without the first round (as for step times)."""
    sent = rows.iloc[1:] if len(rows) > 1 else rows
    sent = sent[sent["workers"] > 1]
    return float((sent["sync_s"] / (2 * (sent["workers"] - 1))).mean()) if len(sent) else 0.0
