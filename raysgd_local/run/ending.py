"""Conclude a run that is over: its report, warnings, and how to go on. None of it can change the outcome."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raysgd_local.console import say
from raysgd_local.report import write_report
from raysgd_local.run.best_checkpoints import unreported_score
from raysgd_local.run.request import Request
from raysgd_local.run_files.checkpoint_survey import finished
from raysgd_local.run_files.storage import Storage


def conclude(storage: Storage, request: Request, result: dict[str, Any], report: bool = True) -> None:
    """Write the report of a run that trained; warn of what was lost and of a score that no evaluation reported."""
    if report and storage.local is not None and result["rounds"]:
        attempt("report.html was not written", lambda: write_report([Path(storage.root)]))
    if lost := result.get("samples_lost"):
        say(f"warning: {lost:,} samples were not trained on in their epoch; docs/data.md says when that happens")
    if missing := result.get("missing"):
        say(f"warning: the storage lost what was written: {', '.join(missing)}")
    attempt("the score of checkpoints is not known", lambda: _warn(storage, request))


def attempt(otherwise: str, work: Callable[[], object]) -> None:
    """Do this work, and warn where it fails: the run is over, and has its own outcome."""
    try:
        work()
    except Exception as error:  # drawing may raise anything
        say(f"warning: {otherwise}: {type(error).__name__}: {' '.join(str(error).split())}")


def _warn(storage: Storage, request: Request) -> None:
    if warning := unreported_score(storage, request.settings.checkpoints):
        say(f"warning: {warning}")


def how_to_go_on(storage: Storage, request: Request) -> str:
    """Return the words for an interrupted run: how to go on from its newest checkpoint, if there is one."""
    try:
        names = finished(storage)
    except OSError as error:
        return f"interrupted; {storage.root} can't be read: {error}"
    if not names:
        return "interrupted before the first checkpoint"
    if not request.by_command:
        return f"interrupted; go on with: fit(resume='auto'), and the name {request.name!r}"
    if storage.local is not None:
        return f"interrupted; go on with: raysgd-local train --resume {shlex.quote(storage.root)}"
    return f"interrupted; go on with the same command, and --resume auto --name {shlex.quote(request.name)}"
