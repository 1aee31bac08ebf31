"""Compressed files, told by their names. They are read through: no row can be sought."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from typing import IO, Any

import pyarrow as pa


def _zstd(file: IO[bytes]) -> Any:
    return pa.CompressedInputStream(file, "zstd")


_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstd,
}
_BUFFER = 1 << 16  # what was decompressed into it is lost where the file breaks
ENDINGS = tuple(ending for ending in _OPENERS if ending != ".tgz")


def is_compressed(name: str) -> bool:
    return name.lower().endswith(tuple(_OPENERS))


def plain_name(name: str) -> str:
    """Return the name without the ending that says how it is compressed.

    >>> plain_name("a.txt.GZ"), plain_name("b.txt")
    ('a.txt', 'b.txt')
    """
    ending = next((ending for ending in ENDINGS if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


def decompressed(file: IO[bytes], name: str) -> IO[bytes]:
    """Return a stream of the file's content: `file` itself if its name doesn't say that it is compressed."""
    opener = next((opener for ending, opener in _OPENERS.items() if name.lower().endswith(ending)), None)
    return file if opener is None else io.BufferedReader(opener(file), _BUFFER)
