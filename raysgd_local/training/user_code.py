"""What user code raised, as the user should see it."""

from __future__ import annotations

import importlib.util
import traceback
from pathlib import Path


def _folder(package: str) -> tuple[str, ...]:
    spec = importlib.util.find_spec(package)
    return (str(Path(spec.origin).resolve().parent),) if spec is not None and spec.origin else ()


_NOT_THE_USERS = (*_folder("raysgd_local"), *_folder("ray"))


def own_traceback(error: BaseException) -> str:
    """The traceback as the user's own code shows it; our frames and Ray's only where there are no others."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS)]
    lines = traceback.format_list(theirs or frames) + traceback.format_exception_only(error)
    return "Traceback (most recent call last):\n" + "".join(lines).rstrip()
