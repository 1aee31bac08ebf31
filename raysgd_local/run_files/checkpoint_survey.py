"""Find the checkpoints in a run's directory, and the newest good one among them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from raysgd_local.algorithms.schedules.base import Schedule
from raysgd_local.control.controller.checkpoints import NAME, snapshot_of
from raysgd_local.errors import CheckpointError
from raysgd_local.run_files import tables
from raysgd_local.run_files.manifest import MANIFEST, Manifest, Part, read_manifest
from raysgd_local.run_files.storage import Storage

Plain = dict[str, Any]

FALLBACKS = 8
"""Older checkpoints that a run which keeps all of them knows of: each is in the journal, with its ledger."""


@dataclass(frozen=True)
class Survey:
    """A run's checkpoints: that to go on from, and the others."""

    manifest: Plain | None = None  # content of the newest good checkpoint's manifest; None: there is none
    older: tuple[Plain, ...] = ()  # manifests of good ones before it, oldest first; their parts were not read
    damaged: dict[str, str] = field(default_factory=dict)  # the reasons, by name; newest first
    newer: tuple[str, ...] = ()  # names of those after it, which were not asked for

    @property
    def passed_over(self) -> tuple[str, ...]:
        """The damaged checkpoints newer than the newest good one."""
        newest = int(self.manifest["name"]) if self.manifest is not None else 0
        return tuple(name for name in self.damaged if int(name) > newest)


def finished(storage: Storage) -> list[str]:
    """Return the names of finished checkpoints, oldest first."""
    checkpoints = storage.under("checkpoints")
    return [name for name in begun(storage) if checkpoints.exists(f"{name}/{MANIFEST}")]


def begun(storage: Storage) -> list[str]:
    """Return the names of all checkpoints, finished or not, oldest first."""
    try:
        return sorted(filter(NAME.fullmatch, storage.under("checkpoints").names()), key=int)
    except NotADirectoryError:
        return []


def survey(
    storage: Storage, schedule: Schedule | None = None, upto: str | None = None, most: int | None = None
) -> Survey:
    """Look through a run's checkpoints, or those up to the name `upto`.

    The newest whose every part has its checksum is the one to go on from; of those before it (at most so many good
    ones) the manifests are read.
    `schedule` is the run's: a checkpoint whose schedule's state does not fit it is not good. Raises `CheckpointError`
    if there is a file in the place of the checkpoints' directory.
    """
    names = finished(storage)
    if not names and storage.size("checkpoints") is not None:
        raise CheckpointError(f"{storage.root}/checkpoints is not a directory")
    newer = [name for name in names if upto is not None and int(name) > int(upto)]
    good: list[Manifest] = []
    damaged: dict[str, str] = {}
    for name in reversed(names[: len(names) - len(newer)]):
        if most is not None and len(good) > most:
            break
        try:
            good.append(_examined(storage, name, schedule, whole=not good))
        except CheckpointError as error:
            damaged[name] = str(error)
    found = [manifest.plain for manifest in good]
    return Survey(found[0] if found else None, tuple(found[:0:-1]), damaged, tuple(newer))


def _examined(storage: Storage, name: str, schedule: Schedule | None, whole: bool) -> Manifest:
    """Read a checkpoint's manifest, and if `whole` all its parts. Raises `CheckpointError` if it is not good."""
    checkpoints = storage.under("checkpoints")
    manifest = read_manifest(checkpoints.under(name))
    if schedule is not None:
        snapshot_of(manifest.plain, schedule)
    if not manifest.sealed and (wrong := _contradicts_tables(storage, manifest)):
        raise CheckpointError(f"{checkpoints.root}/{name}/{MANIFEST} contradicts the tables: {wrong}")
    for part in manifest.parts:
        if whole:
            checked(checkpoints, part)
        elif checkpoints.size(part.path) != part.bytes:
            raise CheckpointError(f"{checkpoints.root}/{part.path} does not have the size that the manifest says")
    return manifest


def _contradicts_tables(storage: Storage, manifest: Manifest) -> str:
    """Return where a manifest without a checksum contradicts the tables; empty where it does not.

    Tables that can't be read are another's matter: they refuse a resume.
    """
    state = manifest.record.replicated
    rows = [row for row in _rows(storage, tables.ROUNDS) or () if row["round"] <= state.round]
    if state.round and not rows:
        return ""
    sums = {name: sum(row[name] for row in rows) for name in ("steps", "samples")}
    if len(rows) != state.round or sums != {"steps": state.steps, "samples": state.samples}:
        return f"after round {state.round} they have {sums['steps']} steps and {sums['samples']} samples"
    evaluations = _rows(storage, tables.EVALS)
    if evaluations is not None and len(evaluations) < state.evaluations:
        return f"they have {len(evaluations)} of {state.evaluations} evaluations"
    return ""


def _rows(storage: Storage, name: str) -> Sequence[tables.Row] | None:
    """Return a table's rows; None if there are none to compare with."""
    try:
        return tables.parsed(name, storage.read(name)) if storage.exists(name) else None
    except (OSError, tables.DamagedFileError):
        return None


def checked(checkpoints: Storage, part: Part) -> bytes:
    """Read a part. Raises `CheckpointError` if it is missing, or does not have its checksum."""
    place = f"{checkpoints.root}/{part.path}"
    try:
        content = checkpoints.read(part.path)
    except OSError as error:
        raise CheckpointError(f"{place} can't be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise CheckpointError(f"{place} is damaged: its SHA-256 is not the manifest's")
    return content


def delete_after(storage: Storage, name: str, keep: Sequence[str]) -> tuple[str, ...]:
    """Delete checkpoints newer than `name`, finished or not, except `keep`; return their names."""
    checkpoints = storage.under("checkpoints")
    gone = tuple(later for later in begun(storage) if int(later) > int(name) and later not in keep)
    for later in gone:
        checkpoints.delete(later)
    return gone
