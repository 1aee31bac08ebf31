"""Interpret the options of `raysgd-local tune`, without torch or Ray: the sweep, its directory, new or resumed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raysgd_local.errors import InputError
from raysgd_local.run_files import reader
from raysgd_local.run_files.paths import directory_name, expanded
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.tuning.reported import check_metrics
from raysgd_local.tuning.results import SWEEP
from raysgd_local.tuning.sweep import Sweep, load


@dataclass(frozen=True)
class Asked:
    """The requested sweep."""

    sweep: Sweep
    directory: Path  # absolute; holds a started sweep if that is to be continued


@dataclass(frozen=True)
class Narrowing:
    """Simulate all points first, and run only the best for real."""

    cluster: ClusterModel
    top: int | None = None  # number of choices to run for real; None: none


def asked(
    file: Path | None, settings: Sequence[str], storage: str | None, name: str | None, resume: str | None
) -> Asked:
    """Interpret the options. Raises `InputError` for values that can't be used, and for a directory that exists."""
    given = None if file is None else load(file, settings)
    if resume is not None and resume != "auto":
        directory = Path(expanded(resume, "resume")).absolute()
        return Asked(begun(directory, given), directory)
    if given is None or file is None:
        raise InputError("sweep", None, "a sweep's YAML file, or --resume with a sweep's directory")
    if resume == "auto" and name is None:
        raise InputError("name", None, "the sweep's name, with --resume auto", "add --name")
    place = expanded(storage or given.first.storage)
    _check(given, place)
    directory = Path(place).absolute() / directory_name(default_name(file.stem) if name is None else name)
    if resume == "auto" and (directory / SWEEP).is_file():
        return Asked(begun(directory, given), directory)
    reader.refuse_existing(place, directory.name)
    return Asked(given, directory)


def default_name(what: str) -> str:
    """Return a sweep's default name, with the time (to a second)."""
    return f"tune-{what}-{time.strftime('%Y%m%d-%H%M%S')}"


def begun(directory: Path, given: Sweep | None) -> Sweep:
    """Load the sweep that was started in this directory. Raises `InputError` if there is none, or `given` differs."""
    if not (directory / SWEEP).is_file():
        raise InputError("resume", str(directory), "auto, or a sweep's directory", f"it has no {SWEEP}")
    known = load(directory / SWEEP)
    if given is not None and given.model_dump() != known.model_dump():
        raise InputError("sweep", str(directory), "the sweep that was begun there, unchanged", "or another name")
    return known


def _check(sweep: Sweep, storage: str) -> None:
    if "://" in storage:
        raise InputError("storage", storage, "a path that all machines see, for a sweep")
    reader.check_storage(storage)
    sweep.first.check()
    check_metrics(sweep)
