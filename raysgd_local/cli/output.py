"""Standard output: any character on any terminal, and a disk or reader that is gone."""

from __future__ import annotations

import contextlib
import os
import sys
from io import TextIOWrapper


def take_any_character() -> None:
    """Write characters that the terminal's encoding lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def last_line(path: object) -> None:
    """Print the path of what was made. If it can't be printed, say so on standard error: it was made all the same."""
    try:
        print(path, flush=True)
    except OSError as error:
        _close()
        print(f"warning: standard output: {error}; the result is in {path}", file=sys.stderr)


def flush() -> str:
    """Write all that was printed. Return the error; empty if there is none."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _close()
        return str(error)
    return ""


def _close() -> None:
    """Drop what can't be written: the interpreter would try again at its end, and fail there."""
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
