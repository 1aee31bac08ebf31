"""Tracebacks of exceptions in user code, without the package's own frames."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import ModuleType

_OURS = str(Path(__file__).resolve().parents[1])


def own_traceback(error: BaseException, *around: ModuleType) -> str:
    """Format a traceback without this package's frames and those of `around`, unless it has no others."""
    folders = (_OURS, *(str(Path(str(module.__file__)).resolve().parent) for module in around))
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(folders)]
    lines = traceback.format_list(theirs or frames) + traceback.format_exception_only(error)
    return "Traceback (most recent call last):\n" + "".join(lines).rstrip()
