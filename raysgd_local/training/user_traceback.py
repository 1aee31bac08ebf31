"""Tracebacks of exceptions in user code, without the package's own frames."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import ModuleType

from raysgd_local.errors import RaySGDError

_EXITS = "\nThe loop ended its own process. To end training early, call ctx.stop(), or return on all workers alike"

_OURS = str(Path(__file__).resolve().parents[1])


def own_traceback(error: BaseException, *around: ModuleType) -> str:
    """Format a traceback without this package's frames and those of `around`, unless it has no others.

    An error that this package raises on purpose says all by its message.
    """
    folders = (_OURS, *(str(Path(str(module.__file__)).resolve().parent) for module in around))
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(folders)]
    shown = theirs or ([] if isinstance(error, RaySGDError) else frames)
    lines = traceback.format_list(shown) + traceback.format_exception_only(error)
    text = ("Traceback (most recent call last):\n" if shown else "") + "".join(lines).rstrip()
    return text + _EXITS if isinstance(error, SystemExit) else text
