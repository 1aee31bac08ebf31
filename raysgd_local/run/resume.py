"""From the words of `resume` to a checkpoint: the one that was asked for, or the newest good one."""

from __future__ import annotations

from pathlib import Path

from raysgd_local.algorithms.schedules.base import Schedule
from raysgd_local.console import say
from raysgd_local.control.controller.checkpoints import NAME, snapshot_of
from raysgd_local.errors import CheckpointError, InputError
from raysgd_local.run_files.checkpoint_survey import FALLBACKS, Survey, begun, survey
from raysgd_local.run_files.paths import expanded
from raysgd_local.run_files.storage import Storage
from raysgd_local.run_files.stored_files import check_files


def to_resume(storage: Storage, resume: str | None, schedule: Schedule, keep: int | None = 1) -> Survey:
    """Return the run's checkpoints, with the one to go on from; warn about damaged ones and missing rows.

    `keep` is how many the run keeps; None: all of them.

    Raises `CheckpointError` if the checkpoint that was asked for is not good, or none is where there must be one, and
    `InputError` if the run's other files can't be read.
    """
    if resume is None:
        return Survey()
    asked = asked_checkpoint(storage, resume)
    found = survey(storage, schedule, asked, FALLBACKS if keep is None else None)
    if asked is not None and (found.manifest is None or found.manifest["name"] != asked):
        raise CheckpointError(f"{resume}: {_why_not(found, asked)}")
    if found.manifest is None and (found.damaged or resume != "auto"):
        reasons = "".join(f"; {why}" for why in found.damaged.values())
        raise CheckpointError(f"{resume}: no finished, undamaged checkpoint to go on from{reasons}")
    _warn(found, _missing_rows(storage, found, schedule))
    return found


def asked_checkpoint(storage: Storage, resume: str) -> str | None:
    """Return the name of the checkpoint that `resume` is, or lies in; None for `auto` and the run's directory.

    Raises `InputError` for a path that is not of this run.
    """
    if resume == "auto":
        return None
    if NAME.fullmatch(resume) and resume in begun(storage):
        return resume
    rest = _below(storage, resume)
    if rest in ([], ["checkpoints"]):
        return None
    if rest is not None and rest[0] == "checkpoints" and NAME.fullmatch(rest[1]):
        return rest[1]
    allowed = f"auto, {storage.root}, or a checkpoint in it"
    raise InputError("resume", resume, allowed, "a run goes on in its own directory")


def _below(storage: Storage, place: str) -> list[str] | None:
    """Return the parts of a path below the run's directory; None if it is not below."""
    if storage.local is not None:
        path, root = Path(expanded(place, "resume")).resolve(), storage.local.resolve()
        return list(path.relative_to(root).parts) if path.is_relative_to(root) else None
    uri = (place.partition("://")[2] or place).partition("?")[0]
    path_parts = uri.strip("/").split("/")
    root_parts = storage.root.strip("/").split("/")
    return path_parts[len(root_parts) :] if path_parts[: len(root_parts)] == root_parts else None


def _why_not(found: Survey, asked: str) -> str:
    good = [manifest["name"] for manifest in (*found.older, found.manifest) if manifest is not None]
    why = found.damaged.get(asked, "it is not a finished checkpoint")
    return f"{why}; good ones before it: {', '.join(good) or 'none'}"


def _missing_rows(storage: Storage, found: Survey, schedule: Schedule) -> dict[str, int]:
    state = snapshot_of(found.manifest, schedule).replicated if found.manifest is not None else None
    return check_files(storage, state)


def _warn(found: Survey, missing: dict[str, int]) -> None:
    for name in found.passed_over:
        say(f"warning: checkpoint {name} is damaged; going on from the one before")
    if found.newer and found.manifest is not None:
        names = ", ".join(found.newer)
        told = f"going back to checkpoint {found.manifest['name']}: as training goes on, the newer ones ({names})"
        say(f"{told} and the rows after it are removed")
    if "rounds" in missing:
        told = f"rounds.csv lacks {missing['rounds']} rounds from {missing['first']} to {missing['last']}"
        say(f"warning: {told}, before the checkpoint")
    if "evaluations" in missing:
        say(f"warning: evals.csv lacks {missing['evaluations']} evaluations before the checkpoint")
