"""A directory on any file system of `pyarrow.fs`, and how its files are opened for reading."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import IO, Any

from pyarrow import fs

from raysgd_local.errors import InputError

_LOCAL_BUFFER = 1 << 16  # not more: whoever skips by seeking reads as much after each jump
_REMOTE_BUFFER = 1 << 22  # each read is a request


@dataclass(frozen=True)
class Location:
    """A directory with files to read."""

    filesystem: fs.FileSystem
    root: str

    @staticmethod
    def at(path: str, filesystem: fs.FileSystem | None = None) -> Location:
        """The directory at an absolute path or URI. Raises `InputError` for a URI that no file system takes."""
        if filesystem is not None:
            return Location(filesystem, path)
        if not is_uri(path):
            return Location(fs.LocalFileSystem(), path)
        try:
            return Location(*fs.FileSystem.from_uri(path))
        except (OSError, ValueError) as error:
            raise InputError("path", path, "a local path or a URI of pyarrow.fs", str(error)) from error

    @property
    def local(self) -> bool:
        """Whether the files are on this machine's file system, where a seek costs nothing."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if self.root else name

    def open(self, name: str) -> IO[bytes]:
        """Open a file as a Python stream that can seek. Raises `OSError`."""
        if self.local:
            return open(self.path(name), "rb", buffering=_LOCAL_BUFFER)
        return io.BufferedReader(self.native(name), _REMOTE_BUFFER)

    def native(self, name: str) -> Any:
        """Open a file as one of pyarrow's. Raises `OSError`."""
        return self.filesystem.open_input_file(self.path(name))


def is_uri(path: str) -> bool:
    return "://" in path


def absolute(path: object) -> str:
    """Return a path that means the same in every process: relative ones are resolved here. URIs stay as they are.

    Raises `InputError` for anything but a path.
    """
    try:
        text = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        text = None
    if not isinstance(text, str) or not text or "\0" in text:
        raise InputError("path", path, "a path or a URI of a file, a directory or a glob")
    return text if is_uri(text) else os.path.abspath(os.path.expanduser(text))
