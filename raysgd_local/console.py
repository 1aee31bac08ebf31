"""Print for people. A reader that is gone (EPIPE) or a full disk (ENOSPC) ends the printing, and nothing else."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any


class StandardError(io.TextIOBase):
    """Standard error for libraries that print there: writing never fails."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(sys.stderr, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if sys.stderr is not None:
            with suppress(OSError, ValueError):  # ValueError: it is closed
                sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            with suppress(OSError, ValueError):
                sys.stderr.flush()

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return sys.stderr is not None and sys.stderr.isatty()
        return False

    def fileno(self) -> int:
        return sys.stderr.fileno()


def take_any_character() -> None:
    """Print characters that standard output's encoding lacks as escapes, as standard error does, and don't fail."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def say(message: object) -> None:
    """Print a line on standard error."""
    print(message, file=StandardError(), flush=True)


def show(result: object) -> None:
    """Print a command's result on standard output; where that fails, say so."""
    try:
        print(result, flush=True)
    except (OSError, ValueError) as error:
        _to_nowhere(sys.stdout)
        say(f"warning: standard output can't be written ({error}): {result}")


def close_output() -> str:
    """Give up on output that can't be written: at its end Python would fail over it, and change the exit status.

    Return the error of standard output; empty if there is none, or if its reader did not want more.
    """
    trouble = ""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError) as error:
            _to_nowhere(stream)
            if stream is sys.stdout and not isinstance(error, BrokenPipeError):
                trouble = str(error)
    return trouble


def _to_nowhere(stream: Any) -> None:
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
