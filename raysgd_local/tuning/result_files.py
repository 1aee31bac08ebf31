"""Write the files of a finished sweep: its table, its best configuration, its page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raysgd_local.tuning.page import write_page
from raysgd_local.tuning.results import BEST, PAGE, TABLE, Trial, ranked, seedless, table
from raysgd_local.tuning.sweep import Sweep


def write_results(directory: Path, sweep: Sweep, trials: Sequence[Trial]) -> Trial | None:
    """Write `trials.csv`, `trials.parquet`, `best.yaml` and `report.html`. Return the best trial, if there is one."""
    found = table(trials, sweep.objective)
    found.to_csv(directory / f"{TABLE}.csv", index=False)
    found.to_parquet(directory / f"{TABLE}.parquet", index=False)
    best = next(iter(ranked(trials, sweep.objective)), None)
    if best is not None:
        (directory / BEST).write_text(sweep.config(seedless(best.point)).to_yaml(), encoding="utf-8")
    write_page(directory / PAGE, sweep, trials)
    return best
