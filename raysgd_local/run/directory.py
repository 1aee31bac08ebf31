"""A run's directory is taken before anything is written to it, and given back where nothing was trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raysgd_local.errors import InputError
from raysgd_local.run.request import Request
from raysgd_local.run_files.storage import Storage
from raysgd_local.run_files.writer import OWN_FILES

CONFIG = "config.yaml"


def check_new(storage: Storage, request: Request) -> None:
    """Raise `InputError` where the run's directory exists, or can't be looked at."""
    with _writable(request):
        if storage.exists(CONFIG):
            hint = "go on with it by resume='auto', or choose another name"
            raise InputError("name", request.name, f"a name that is not in {request.storage} yet", hint)


def claim(storage: Storage, request: Request) -> None:
    """Write the configuration. Raises `InputError` where that can't be done."""
    with _writable(request):
        storage.write(CONFIG, request.config_yaml.encode())


def give_back(storage: Storage) -> None:
    """Nothing was trained: take away what we wrote, and nothing else, so that a corrected run may have the name."""
    for name in (CONFIG, *OWN_FILES):
        storage.delete_file(name)
    if not storage.names():
        storage.delete("")


@contextmanager
def _writable(request: Request) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError("storage", request.storage, "a place that can be written", str(error)) from error
