"""Paths and names of directories that users give."""

from __future__ import annotations

import os

from raysgd_local.errors import InputError

LONGEST_NAME = 200  # bytes: file systems allow 255, and names of temporary files add to a run's
_LONGEST_PART, _LONGEST_PATH = 255, 4000  # bytes


def expanded(path: str, field: str = "storage") -> str:
    """Return a path or URI with the user's home for a leading `~`.

    Raises `InputError` for an unknown user's, and for one that no file system can have.
    """
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise InputError(field, path, "a path", "there is no such user; write ./~… for a directory of that name")
    if hint := _impossible(found):
        raise InputError(field, path, "a path that a file system can have", hint)
    return found


def _impossible(path: str) -> str:
    """Return why no file system has such a path; empty if one may."""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        return "it can't be encoded"
    if b"\0" in encoded:
        return "it has a NUL character"
    if len(encoded) > _LONGEST_PATH or max(map(len, encoded.split(b"/"))) > _LONGEST_PART:
        return f"a name in it is longer than {_LONGEST_PART} bytes, or the whole longer than {_LONGEST_PATH:,}"
    return ""


def directory_name(name: object, field: str = "name") -> str:
    """Return the name. Raises `InputError` unless a single directory, not a path, can have it."""
    if not isinstance(name, str) or not name.strip() or name in (".", ".."):
        raise InputError(field, name, "the name of a directory")
    if "/" in name or not name.isprintable():
        raise InputError(field, name[:LONGEST_NAME], "the name of a directory, without / and control characters")
    if len(name.encode(errors="replace")) > LONGEST_NAME:
        raise InputError(field, f"{name[:20]}…", f"a name of at most {LONGEST_NAME} bytes")
    return name
