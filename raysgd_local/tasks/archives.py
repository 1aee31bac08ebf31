"""Data files that may lie packed in a directory that we must not write to."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from raysgd_local.errors import InputError


def missing(directory: Path, names: Sequence[str]) -> list[str]:
    """The names that are in `directory` neither as they are nor with `.gz`."""
    return [name for name in names if not any((directory / f"{name}{end}").is_file() for end in ("", ".gz"))]


def unpacked(raw: Path, names: Sequence[str]) -> Path:
    """A directory `.../DATASET/raw` where all of `names` lie unpacked: `raw` itself, or one in the user's cache.

    Any number of processes may do this at once: each file appears whole or not at all. Raises `InputError`
    (field `data_dir`) for a damaged archive or a cache that can't be written.
    """
    if all((raw / name).is_file() for name in names):
        return raw
    target = _cache() / _fingerprint(raw, names) / raw.parent.name / raw.name
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (target / name).is_file():
                _unpack(raw / name, target / name)
    except (EOFError, zlib.error, OSError) as error:
        allowed = "a directory of undamaged files, and a cache directory that can be written"
        raise InputError("data_dir", str(raw), allowed, f"{type(error).__name__}: {error}") from error
    return target


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raysgd-local"


def _fingerprint(raw: Path, names: Sequence[str]) -> str:
    """Names the cache after the archives' place, size and age, so that new data are never mistaken for old."""
    parts = [str(raw.resolve())]
    for name in names:
        source = raw / name if (raw / name).is_file() else raw / f"{name}.gz"
        parts.append(f"{source.stat().st_size}-{source.stat().st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _unpack(source: Path, target: Path) -> None:
    """Unpack under a name of our own, then rename: no one ever sees a part of the file."""
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        part = Path(directory) / target.name
        if source.is_file():
            shutil.copyfile(source, part)
        else:
            with gzip.open(f"{source}.gz") as packed, part.open("wb") as file:
                shutil.copyfileobj(packed, file)
        part.replace(target)
