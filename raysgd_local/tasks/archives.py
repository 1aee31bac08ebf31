"""Unpack data files from a read-only directory into the user's cache."""

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
    """Return the names that are not in `directory`, neither plain nor with `.gz`."""
    return [name for name in names if not any((directory / f"{name}{end}").is_file() for end in ("", ".gz"))]


def unpacked(raw: Path, names: Sequence[str]) -> Path:
    """Return a directory `.../DATASET/raw` with all of `names` unpacked: `raw` itself, or one in the user's cache.

    Safe to call from several processes at once: each file appears whole or not at all. Raises `InputError` (field
    `data_dir`) for a damaged archive or a cache that can't be written.
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
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "raysgd-local"


def _fingerprint(raw: Path, names: Sequence[str]) -> str:
    """Return a name for the cache, from the archives' path, size and age, so that changed data get a new cache."""
    parts = [str(raw.resolve())]
    for name in names:
        source = raw / name if (raw / name).is_file() else raw / f"{name}.gz"
        parts.append(f"{source.stat().st_size}-{source.stat().st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _unpack(source: Path, target: Path) -> None:
    """Unpack into a temporary file, then rename it, so that other processes never see a partial file."""
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        part = Path(directory) / target.name
        if source.is_file():
            shutil.copyfile(source, part)
        else:
            with gzip.open(f"{source}.gz") as packed, part.open("wb") as file:
                shutil.copyfileobj(packed, file)
        part.replace(target)
