"""Make a job for a remote cluster from a run's arguments."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raysgd_local.config import Config
from raysgd_local.errors import InputError


@dataclass(frozen=True)
class Job:
    """A command to be run on a remote cluster."""

    run: str  # path or URI of the run's directory
    directory: Path  # local files that are sent with the job
    entrypoint: str  # the command line


def as_job(
    plan: Config, directory: Path, config: Path | None, method: str | None, settings: Sequence[str], chaos: str
) -> Job:
    """Make the job that trains `plan`, with the command line from the other arguments, which are those of `train`.

    Submitted again, it continues from the newest checkpoint. Raises `InputError` if the run has no name (needed to
    continue), if other machines can't reach its storage, or if its file is not in `directory`.
    """
    if not directory.is_dir():
        raise InputError("working-dir", str(directory), "a directory")
    if plan.name is None:
        raise InputError("name", None, "the run's name, so that a repeated job can continue it", "add --name")
    if "://" not in plan.storage and not Path(plan.storage).is_absolute():
        allowed = "a URI, or an absolute path that all machines of the cluster share"
        raise InputError("storage", plan.storage, allowed, "add --storage")
    words = ["raysgd-local", "train", *_within(directory, config)]
    words += ["--method", method] if method is not None else []
    words += [word for setting in settings for word in ("--set", setting)]
    words += ["--storage", plan.storage, "--name", plan.name, "--resume", "auto"]
    words += ["--chaos", chaos] if chaos else []
    return Job(f"{plan.storage.rstrip('/')}/{plan.name}", directory, shlex.join(words))


def _within(directory: Path, config: Path | None) -> list[str]:
    """Return the configuration's path relative to the directory that is sent, in which the job starts."""
    if config is None:
        return []
    try:
        return [str(config.resolve().relative_to(directory.resolve()))]
    except ValueError as error:
        allowed = f"a file in the directory that is submitted, {directory}"
        raise InputError("config", str(config), allowed, "choose another with --working-dir") from error
