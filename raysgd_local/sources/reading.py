"""Read a shard's rows from a given one on; whatever can't be read is an error that names shard and row."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa

from raysgd_local.errors import InputError, ShardError

Raw = TypeVar("Raw")

STORAGE: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    UnicodeError,
    zlib.error,
    lzma.LZMAError,
    pa.ArrowException,
)
"""Errors of files. Code of the user's that is called on the way may raise others, which are its own."""

FORMAT: tuple[type[Exception], ...] = (*STORAGE, ValueError, tarfile.TarError, RecursionError)
"""Errors where only our own code and libraries read."""


def read(
    shard: str,
    start: int,
    begin: Callable[[], tuple[int, Iterator[Raw]]],
    decode: Callable[[Raw], Any],
    unreadable: tuple[type[Exception], ...] = FORMAT,
) -> Iterator[Any]:
    """Iterate over the decoded rows from `start`.

    `begin` opens the shard and returns the number of the first row that it reads, with the rows that follow. Rows
    before `start` are not decoded. Raises `ShardError` in place of `unreadable` exceptions.
    """
    row = start
    try:
        row, rows = begin()
        for _ in islice(rows, start - row):
            row += 1
        for raw in rows:
            yield decode(raw)
            row += 1
    except InputError:
        raise
    except unreadable as error:
        raise ShardError(shard, row, reason(error)) from error


@contextmanager
def naming(shard: str) -> Iterator[None]:
    """Raise `ShardError` in place of errors of files: for what is learned of a shard before its rows are read."""
    try:
        yield
    except InputError:
        raise
    except FORMAT as error:
        raise ShardError(shard, 0, reason(error)) from error


def reason(error: Exception) -> str:
    """Return an error's text for a message.

    >>> reason(FileNotFoundError(2, "No such file or directory")), reason(EOFError())
    ('there is no such file', 'EOFError')
    """
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return str(error) or type(error).__name__
