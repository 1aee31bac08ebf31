"""A cluster as a run met it: all that the run's own table tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raysgd_local.run_files import reader
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.cluster.step_times import Measured

if TYPE_CHECKING:
    import pandas as pd


def cluster_of(run: str) -> ClusterModel:
    """Step times, links, what a round costs beside both, and the warm-up, from a run's `rounds.csv`.

    Links: as if all that an averaging took were the latency of a ring's messages. That holds for runs of as many
    workers that send as much; a table does not tell one size's time from another's. Raises `InputError` where there is
    no such run, or it took no step.
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
    """The mean time of one of a ring's 2(m − 1) messages; the first round is left out, as in its steps."""
    sent = rows.iloc[1:] if len(rows) > 1 else rows
    sent = sent[sent["workers"] > 1]
    return float((sent["sync_s"] / (2 * (sent["workers"] - 1))).mean()) if len(sent) else 0.0
