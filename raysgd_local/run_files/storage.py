"""Read and write files on any `pyarrow.fs` path, whole or not at all, with their checksum."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from raysgd_local.errors import CheckpointError, InputError

_OBJECT_STORES = ("s3", "gcs", "abfs")


@dataclass(frozen=True)
class Storage:
    """A directory on a file system that the driver and all workers can reach."""

    filesystem: fs.FileSystem
    root: str

    @staticmethod
    def at(location: str, filesystem: fs.FileSystem | None = None) -> Storage:
        """The directory at a path or URI (`s3://…`, `gs://…`, a local path).

        Raises `InputError` for a URI that no file system takes.
        """
        if filesystem is not None:
            return Storage(filesystem, location)
        if "://" not in location:
            return Storage(fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(location)))
        try:
            found, path = fs.FileSystem.from_uri(location)
        except (OSError, ValueError) as error:
            raise InputError("storage", location, "a local path or a URI of pyarrow.fs", str(error)) from error
        return Storage(found, path)

    @property
    def local(self) -> Path | None:
        """The directory's path on this machine's file system; None for remote storage."""
        return Path(self.root) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    def under(self, name: str) -> Storage:
        return Storage(self.filesystem, f"{self.root}/{name}")

    def write(self, name: str, content: bytes) -> str:
        """Write a file whole or not at all; returns its SHA-256.

        Object stores publish a file when its stream is closed; elsewhere it is renamed into place.
        """
        path = f"{self.root}/{name}"
        if self.filesystem.type_name not in _OBJECT_STORES:  # they have no directories, only names with slashes
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        if self.local is None:
            with self.filesystem.open_output_stream(path) as stream:
                stream.write(content)
        else:
            self._write_and_rename(path, content)
        return hashlib.sha256(content).hexdigest()

    def _write_and_rename(self, path: str, content: bytes) -> None:
        draft = f"{path}.{uuid.uuid4().hex}.tmp"
        try:
            with open(draft, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(draft, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise

    def read(self, name: str) -> bytes:
        """Return a file's content. Raises `OSError`; also for what is no file, such as a pipe, which may never end."""
        path = f"{self.root}/{name}"
        if self.local is not None and os.path.exists(path) and not os.path.isfile(path):
            raise OSError(f"{path} is not a file")
        with self.filesystem.open_input_stream(path) as stream:
            content: bytes = stream.read()
        return content

    def exists(self, name: str) -> bool:
        info = self.filesystem.get_file_info(f"{self.root}/{name}")
        return bool(info.type != fs.FileType.NotFound)

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None if there is no such file."""
        size: int | None = self.filesystem.get_file_info(f"{self.root}/{name}").size
        return size

    def names(self) -> list[str]:
        """Return the names in the directory, sorted; empty if it does not exist."""
        selector = fs.FileSelector(self.root, allow_not_found=True)
        return sorted(info.base_name for info in self.filesystem.get_file_info(selector))

    def delete(self, name: str) -> None:
        """Delete a directory in this one; with an empty name, this one."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_dir(f"{self.root}/{name}".rstrip("/"))

    def delete_file(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self.filesystem.delete_file(f"{self.root}/{name}")


def checked(storage: Storage, name: str, sha256: str) -> bytes:
    """Read a file. Raises `CheckpointError` if it is missing, or does not match its checksum."""
    try:
        content = storage.read(name)
    except OSError as error:
        raise CheckpointError(f"{storage.root}/{name} can't be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(f"{storage.root}/{name} is damaged: its SHA-256 is not the manifest's")
    return content
