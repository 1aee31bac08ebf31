"""The headers of tar files: read strictly, and skipped over quickly."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import IO

_BLOCK = tarfile.BLOCKSIZE
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.S)
_META = re.compile(r"__[^/]*__($|/)")
_DIRECTORY, _PAX = ord("5"), ord("x")
_SKIPPED = (0, ord("0"), _DIRECTORY, _PAX)
_CHANGES_MEMBER = re.compile(rb"^\d+ (path|size|GNU\.[^=]*)=", re.M)  # entries of a pax header


def key_and_extension(name: str) -> tuple[str, str] | None:
    """Split a member's name as `webdataset` does; None for a member that belongs to no row.

    >>> key_and_extension("a.b/0001.seg.PNG"), key_and_extension("README"), key_and_extension("__meta__/a.json")
    (('a.b/0001', 'seg.png'), None, None)
    """
    match = _NAME.fullmatch(name)
    return None if match is None or _META.match(name) else (match[1], match[2].lower())


class StrictInfo(tarfile.TarInfo):
    """A member's header. Only the mark of the archive's end ends it: tarfile would take a cut or damage for the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> StrictInfo:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            at = f"at byte {tarfile_.offset}"
            raise tarfile.ReadError(f"the archive is cut off or damaged {at}: {error}") from error


def row_offsets(file: IO[bytes], offset: int) -> Iterator[int]:
    """Yield the offset of each row's first header, from the row at `offset` on, as long as headers are plain.

    Contents are not read. It ends before a header that is out of the ordinary: `tarfile` has to read from there.
    """
    file.seek(offset)
    key: str | None = None
    begin = offset  # of the next member's headers
    while (header := _plain_header(file.read(_BLOCK))) is not None:
        kind, name, size = header
        if kind == _PAX and _CHANGES_MEMBER.search(file.read(size)):
            return
        offset += _BLOCK + -(-size // _BLOCK) * _BLOCK
        file.seek(offset)
        if kind == _PAX:
            continue
        named = key_and_extension(name) if kind != _DIRECTORY else None
        if named and named[0] != key:
            key = named[0]
            yield begin
        begin = offset


def _plain_header(block: bytes) -> tuple[int, str, int] | None:
    """Return a header's kind, name and size; None if it isn't an intact one of a kind that can be skipped."""
    if len(block) < _BLOCK or block[156] not in _SKIPPED or block[257:262] != b"ustar":
        return None
    try:
        size, checksum = int(block[124:136].rstrip(b" \0"), 8), int(block[148:156].rstrip(b" \0"), 8)
        name, prefix = (block[a:b].partition(b"\0")[0].decode() for a, b in ((0, 100), (345, 500)))
    except ValueError:
        return None
    if sum(block) - sum(block[148:156]) + 8 * ord(" ") != checksum:
        return None
    joined = f"{prefix}/{name}" if prefix and block[262:265] == b"\x0000" else name
    return block[156], joined, size
