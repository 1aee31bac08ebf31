"""A file that grows: compared with what was written before each append, so that no change under it stays unnoticed."""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from pathlib import Path

_TAIL = 256


class FileChangedError(OSError):
    """A file is not as it was written: another file system lies over it, or somebody replaced or removed it."""


class AppendedFile:
    """A local file of one writer. Every method raises `OSError` if the storage fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._expect(b"")

    def _expect(self, content: bytes) -> None:
        self._size, self._tail, self._digest = len(content), content[-_TAIL:], hashlib.sha256(content)

    @property
    def empty(self) -> bool:
        """Whether nothing was written yet."""
        return self._size == 0

    def read(self) -> bytes:
        """Return the content; from now on the file is expected to be like that. Empty if there is no file."""
        content = self._path.read_bytes() if self._path.exists() else b""
        self._expect(content)
        return content

    def append(self, content: bytes) -> None:
        """Append. Raises `FileChangedError` if the file is not as it was written."""
        with self._path.open("a+b") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - _TAIL))
            if size != self._size or stream.read() != self._tail:
                raise FileChangedError(
                    f"{self._path.name} is not as it was written: {size} bytes, not {self._size}"
                )
            stream.write(content)
        self._size += len(content)
        self._tail = (self._tail + content)[-_TAIL:]
        self._digest.update(content)

    def replace(self, content: bytes) -> None:
        """Write the file anew, whole or not at all, with the directory if that is gone."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f"{self._path.name}.tmp")
        try:
            draft.write_bytes(content)
            draft.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        self._expect(content)

    def intact(self) -> bool:
        """Whether the file is as it was written."""
        if self.empty and not self._path.exists():
            return True
        try:
            return hashlib.sha256(self._path.read_bytes()).digest() == self._digest.digest()
        except OSError:
            return False


class CompressedText:
    """A growing text in memory, at about a tenth of its size."""

    def __init__(self) -> None:
        self._stream, self._parts = zlib.compressobj(), [b""]

    def add(self, text: bytes) -> None:
        if part := self._stream.compress(text):
            self._parts.append(part)

    @property
    def content(self) -> bytes:
        return zlib.decompress(b"".join(self._parts) + self._stream.copy().flush())
