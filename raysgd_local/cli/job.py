"""A run as a command for a cluster that is elsewhere: what is submitted, and what can't be."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raysgd_local.config import Config
from raysgd_local.errors import InputError


@dataclass(frozen=True)
class Job:
    """A command that runs with the files of `directory`. `run` is where the run's own directory will be."""

    run: str
    directory: Path
    entrypoint: str


def as_job(
    plan: Config, directory: Path, config: Path | None, method: str | None, settings: Sequence[str], chaos: str
) -> Job:
    """The run of `plan`, which the other arguments (`train`'s own) describe, as a job.

    Run again, it goes on from its newest checkpoint. Raises `InputError` where it has no name to go on by, where
    other machines could not reach its storage, or where its file is not among the submitted ones.
    """
    if not directory.is_dir():
        raise InputError("working-dir", str(directory), "a directory")
    if plan.name is None:
        raise InputError("name", None, "the run's name, by which a job that is run again goes on", "add --name")
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
    """The configuration's path as the job sees it, from the directory that it begins in."""
    if config is None:
        return []
    try:
        return [str(config.resolve().relative_to(directory.resolve()))]
    except ValueError as error:
        allowed = f"a file in the directory that is submitted, {directory}"
        raise InputError("config", str(config), allowed, "say another with --working-dir") from error
