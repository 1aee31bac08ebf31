"""The checkpoints that a run keeps, as `Result.best_checkpoints` lists them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from raysgd_local.control.controller.checkpoints import CheckpointRecord, ranked, scored, snapshot_of
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings
from raysgd_local.errors import CheckpointError
from raysgd_local.run_files import tables
from raysgd_local.run_files.manifest import read_manifest
from raysgd_local.run_files.storage import Storage
from raysgd_local.run_files.tables import EVALS


def best_checkpoints(
    storage: Storage, names: list[str], settings: Settings
) -> tuple[tuple[str, dict[str, float]], ...]:
    """Return names and metrics of at most `keep` of the finished checkpoints `names`: the best last, as in Ray Train.

    With a score only those that have one; without a score the newest is the best.
    """
    policy = settings.checkpoints
    records = tuple(_records(storage, names, settings))
    scores = scored(records, policy)
    best = [record for record in ranked(records, policy) if policy.score is None or record.name in scores]
    return tuple((s.name, dict(s.replicated.metrics)) for s in best[-(policy.keep or len(best)) :])


def _records(storage: Storage, names: list[str], settings: Settings) -> Iterator[CheckpointRecord]:
    for name in names:
        with contextlib.suppress(CheckpointError):  # a damaged one is not among the best
            manifest = read_manifest(storage.under("checkpoints").under(name))
            yield snapshot_of(manifest.plain, settings.program.schedule)


def unreported_score(storage: Storage, policy: CheckpointPolicy) -> str:
    """Return a warning where no evaluation reported the metric by which checkpoints are kept; else an empty text."""
    if policy.score is None:
        return ""
    try:
        rows = tables.parsed(EVALS, storage.read(EVALS)) if storage.exists(EVALS) else []
    except (OSError, tables.DamagedFileError):  # what can't be read warns of nothing
        return ""
    there = sorted({name for row in rows for name in tables.eval_row(row).metrics})
    if policy.score in there:
        return ""
    found = f"they reported {', '.join(there)}" if there else "there was none"
    return f"no evaluation reported {policy.score!r}, by which to keep checkpoints: {found}. The newest were kept"
