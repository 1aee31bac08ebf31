"""The place of a benchmark's run directories, and finished runs in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raysgd_local.run_files import reader
from raysgd_local.run_files.reader import Run


@contextmanager
def kept_or_temporary(keep: Path | None, purpose: str) -> Iterator[Path]:
    """Yield the directory `keep`, or else one that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"raysgd-{purpose}-") as scratch:
        directory = (keep or Path(scratch)).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        yield directory


def finished(directory: Path) -> Run | None:
    """Return the run in `directory` if it ended; otherwise clear the directory for another try."""
    if (directory / reader.RESULT).exists():
        return reader.load(directory)
    shutil.rmtree(directory, ignore_errors=True)
    return None
