"""Claim a run's directory before the run starts, and remove it again if nothing was trained."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from raysgd_local.errors import InputError
from raysgd_local.run.request import Request
from raysgd_local.run_files.lease import FOLDER, Lease
from raysgd_local.run_files.reader import trained_nothing
from raysgd_local.run_files.storage import Storage
from raysgd_local.run_files.tables import ROUNDS
from raysgd_local.run_files.writer import CONFIG, LOGS, OWN_FILES, RESULT
from raysgd_local.signals import StopRequest, cleaning, leaving

CHECKPOINTS = "checkpoints"


@contextmanager
def leased(storage: Storage, request: Request, stop: StopRequest | None = None) -> Iterator[Lease]:
    """Hold the run's directory, so that no other command writes it meanwhile.

    Raises `InputError` if another command holds it, or if it can't be written; the error of `stop` if that was asked
    while this waited.
    """
    with _writable(request):
        lease = Lease.take(storage, request.name, (stop or StopRequest()).check)
    try:
        with cleaning(lease.release), leaving(lambda: _left(storage, lease)):
            yield lease.keep()
    finally:
        lease.release()


def _left(storage: Storage, lease: Lease) -> list[str]:
    """Return patterns of what is left in the directory when processes are killed: half-written files and the lease."""
    if storage.local is None:
        return []
    run = glob.escape(str(storage.local))
    return [f"{run}/**/*.tmp", f"{run}/{lease.file}", f"{run}/{FOLDER}/", f"{run}/"]


def check_new(storage: Storage, request: Request) -> None:
    """Raise `InputError` if the run's directory exists already, or can't be read."""
    with _writable(request):
        if storage.exists(CONFIG) and not _failed_at_once(storage):
            hint = "continue that run with resume='auto', or choose another name"
            raise InputError("name", request.name, f"a name that is not in {request.storage} yet", hint)


def claim(storage: Storage, request: Request) -> None:
    """Claim the directory by writing the configuration. Raises `InputError` if it can't be written."""
    with _writable(request):
        if _failed_at_once(storage):
            give_back(storage)
        storage.write(CONFIG, request.config_yaml.encode())


@contextmanager
def claimed(storage: Storage, request: Request, new: bool) -> Iterator[bool]:
    """Claim the directory; give back a new one after an exception, if nothing was trained in it since.

    Yield whether there is a run in it, to be resumed: its configuration stays until that goes on.
    """
    with _writable(request):
        again = not new and storage.exists(CONFIG)
    if not again:
        claim(storage, request)

    def give_back_unused() -> None:
        with suppress(OSError):
            if new and not {ROUNDS, CHECKPOINTS} & set(storage.names()):
                give_back(storage)

    try:
        with cleaning(give_back_unused):
            yield again
    except BaseException:
        give_back_unused()
        raise


def _failed_at_once(storage: Storage) -> bool:
    """Whether a run failed there before its first round. Its name can be used again: there is nothing to go on from."""
    if not storage.exists(RESULT) or storage.under("checkpoints").names():
        return False
    return trained_nothing(storage.read(RESULT).decode(errors="replace"))


def give_back(storage: Storage) -> None:
    """Remove the files that we wrote, and only those, so that a corrected run can have the same name."""
    for name in (CONFIG, *OWN_FILES):
        storage.delete_file(name)
    storage.delete(LOGS)
    if not storage.names():
        storage.delete("")


@contextmanager
def _writable(request: Request) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError("storage", request.storage, "a place that can be written", str(error)) from error
