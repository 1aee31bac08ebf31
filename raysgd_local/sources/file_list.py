"""The files at a path: one, those of a directory, or those that match a glob. Names are relative to the directory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache, cached_property
from typing import Any

from pyarrow import fs

from raysgd_local.errors import InputError
from raysgd_local.sources.compression import ENDINGS, plain_name
from raysgd_local.sources.location import Location, absolute, is_uri

_WILD = re.compile(r"[*?\[]")
_WILD_IN_URI = re.compile(r"[*\[]")  # there a question mark begins the options


class FileList:
    """The files of one kind at a path, sorted by name. They are looked up when they are first needed, in each process.

    The path is absolute, or one of `filesystem` if that is given.
    """

    def __init__(
        self,
        path: object,
        filesystem: fs.FileSystem | None,
        kind: str,
        endings: tuple[str, ...] = (),  # of the files in a directory; none: all
        compressed: bool = True,
    ) -> None:
        self.path = absolute(path) if filesystem is None else str(path).rstrip("/")
        self.filesystem, self.kind, self.endings, self.compressed = filesystem, kind, endings, compressed

    def __getstate__(self) -> dict[str, Any]:
        """The files are looked up anew where they are read: a machine that lacks some has to notice."""
        return {name: value for name, value in vars(self).items() if name != "_found"}

    @property
    def location(self) -> Location:
        return self._found[0]

    @property
    def names(self) -> tuple[str, ...]:
        return self._found[1]

    @cached_property
    def _found(self) -> tuple[Location, tuple[str, ...]]:
        """The directory, and the names in it. Raises `InputError` if there are none."""
        try:
            location, names = self._literal() or self._matching()
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise self._refused(str(error)) from error
        if not names:
            braces = ", and braces are no wildcards" if "{" in self.path else ""
            raise self._refused(f"there is none{braces}")
        self._check_copies(location, names)
        return location, tuple(sorted(names))

    def _literal(self) -> tuple[Location, list[str]] | None:
        """The path as it stands; None if nothing is there, and it may be a glob."""
        if is_uri(self.path) and _is_glob(self.path):
            return None  # stores may fail over a name with wildcards
        location = Location.at(self.path, self.filesystem)
        info = location.filesystem.get_file_info(location.root)
        if info.type == fs.FileType.File:
            directory, _, name = location.root.rpartition("/")
            return Location(location.filesystem, directory), [name]
        if info.type == fs.FileType.Directory:
            return location, [name for name in _names(location, recursive=True) if self._takes(name)]
        return None if _is_glob(self.path) else (location, [])

    def _takes(self, name: str) -> bool:
        """Whether a file of a directory is one of the data: of this kind, and not hidden (`.x`, `_SUCCESS`)."""
        if any(part.startswith((".", "_")) for part in name.split("/")):
            return False
        return not self.endings or ends_with(name, self.endings, self.compressed)

    def _matching(self) -> tuple[Location, list[str]]:
        root, pattern = _split(self.path)
        location = Location.at(root, self.filesystem)
        found = _names(location, recursive=len(pattern) > 1 or "**" in pattern)
        return location, [name for name in found if _match(name.split("/"), pattern)]

    def _check_copies(self, location: Location, names: Iterable[str]) -> None:
        """Refuse a file beside its compressed copy, and files that are reached twice, by symbolic links."""
        content_of = _resolver(location.root) if location.local else str
        seen: dict[str, str] = {}
        for name in sorted(names):
            other = seen.setdefault(plain_name(content_of(name)), name)
            if other != name:
                hint = "rows of both would be trained on: remove one, or name the files by a glob"
                raise InputError("path", f"{other} and {name}", "each file once, compressed or not", hint)

    def _refused(self, why: str) -> InputError:
        endings = ", ".join(f"*{ending}" for ending in self.endings)
        also = f"; also {', '.join(ENDINGS)}" if self.compressed and endings else ""
        allowed = f"a file, a directory or a glob of {self.kind}" + (f" ({endings}{also})" if endings else "")
        return InputError("path", self.path, allowed, why)


def ends_with(name: str, endings: tuple[str, ...], compressed: bool = True) -> bool:
    """Whether a name has one of the endings, before that of its compression if it may be `compressed`."""
    return (plain_name(name) if compressed else name).lower().endswith(endings)


def _resolver(root: str) -> Callable[[str], str]:
    """Return a function that resolves links in a name; each directory is resolved once, as there may be many files."""
    directory_of = cache(os.path.realpath)

    def resolved(name: str) -> str:
        directory, _, own = f"{root}/{name}".rpartition("/")
        path = f"{directory_of(directory)}/{own}"
        return os.path.realpath(path) if os.path.islink(path) else path

    return resolved


def _names(location: Location, recursive: bool) -> Iterator[str]:
    """The files in a directory, by their names relative to it. Raises `FileNotFoundError` if it does not exist."""
    root = location.root.rstrip("/")
    selector = fs.FileSelector(location.root, recursive=recursive)
    for info in location.filesystem.get_file_info(selector):
        if info.type == fs.FileType.File:
            yield info.path[len(root) :].lstrip("/")


def _wild(part: str, uri: bool) -> bool:
    return (_WILD_IN_URI if uri else _WILD).search(part) is not None


def _is_glob(path: str) -> bool:
    return _wild(path.partition("?")[0], uri=True) if is_uri(path) else _wild(path, uri=False)


def _split(path: str) -> tuple[str, list[str]]:
    """Return the directory before the first wildcard, and the parts of the pattern that follows.

    >>> _split("/data/*/a?.txt"), _split("s3://b/x/*.txt?region=here")
    (('/data', ['*', 'a?.txt']), ('s3://b/x?region=here', ['*.txt']))
    """
    uri, options = is_uri(path), ""
    if uri:
        path, mark, options = path.partition("?")
        options = mark + options
    parts = path.split("/")
    first = next(number for number, part in enumerate(parts) if _wild(part, uri))
    root = "/".join(parts[:first])
    return (root or "/" * path.startswith("/")) + options, parts[first:]


def _match(parts: list[str], pattern: list[str]) -> bool:
    """Whether a name matches; `**` stands for any number of directories, and a wildcard for no dot at the beginning.

    >>> _match(["a", "b", "c.txt"], ["**", "*.txt"]), _match(["a", "c.txt"], ["*.txt"]), _match([".c"], ["*"])
    (True, False, False)
    """
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _match(parts, pattern[1:]) or (bool(parts) and _match(parts[1:], pattern))
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatchcase(parts[0], pattern[0]) and _match(parts[1:], pattern[1:])
