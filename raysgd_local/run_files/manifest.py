"""`manifest.json` of a checkpoint: written with a checksum over itself, read back whole or not at all.

The file begins with `{"sha256": "…", `. The checksum is of the rest, with a brace before it. Manifests of older
versions have none: they are judged by their content alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from raysgd_local.control.controller.checkpoints import CheckpointRecord, record_of
from raysgd_local.errors import CheckpointError
from raysgd_local.run_files.storage import Storage
from raysgd_local.serialization import from_plain

MANIFEST = "manifest.json"
_HEAD, _TAIL, _DIGITS = b'{"sha256": "', b'", ', 64


@dataclass(frozen=True)
class Part:
    """A file of a checkpoint: one rank's part."""

    rank: int
    path: str  # below `checkpoints/`
    sha256: str
    bytes: int  # its size


@dataclass(frozen=True)
class Manifest:
    """A manifest that is consistent in itself."""

    plain: dict[str, Any]  # its content
    record: CheckpointRecord  # its schedule's state is in the plain form
    parts: tuple[Part, ...]  # by rank
    sealed: bool  # it has a checksum, and that is right


def encoded(plain: dict[str, Any]) -> bytes:
    """Return the file's content."""
    body = json.dumps(plain).encode()
    return _HEAD + hashlib.sha256(body).hexdigest().encode() + _TAIL + body[1:]


def read_manifest(checkpoint: Storage) -> Manifest:
    """Read a checkpoint's manifest. Raises `CheckpointError` if it is missing, damaged, or of another version."""
    try:
        content = checkpoint.read(MANIFEST)
    except OSError as error:
        raise CheckpointError(f"{checkpoint.root} is not a finished checkpoint: {error}") from error
    try:
        return decoded(content, checkpoint.root.rpartition("/")[2])
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.root}/{MANIFEST} is damaged: {error}") from error


def decoded(content: bytes, name: str) -> Manifest:
    """The inverse of `encoded`, for the checkpoint called `name`. Raises `CheckpointError`."""
    sealed = content.startswith(_HEAD)
    if sealed:
        content = _unsealed(content)
    try:
        plain = json.loads(content, object_pairs_hook=_unrepeated)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"it is no JSON: {error}") from error
    if not sealed and isinstance(plain, dict) and "sha256" in plain:
        raise CheckpointError("it does not begin with its checksum")
    record = record_of(plain)
    if record.name != name:
        raise CheckpointError(f"it is of the checkpoint {record.name!r}")
    return Manifest(plain, record, _parts(plain, record), sealed)


def _unsealed(content: bytes) -> bytes:
    """Return what the checksum is of. Raises `CheckpointError` if it is not."""
    digest, rest = content[len(_HEAD) :][:_DIGITS], content[len(_HEAD) + _DIGITS :]
    body = b"{" + rest.removeprefix(_TAIL)
    if not rest.startswith(_TAIL) or hashlib.sha256(body).hexdigest().encode() != digest:
        raise CheckpointError("it does not have the checksum that it begins with")
    return body


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _parts(plain: dict[str, Any], record: CheckpointRecord) -> tuple[Part, ...]:
    try:
        parts = from_plain(tuple[Part, ...], plain["shards"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"shards: {error}") from error
    places = [(rank, f"{record.name}/rank-{rank}.pt") for rank in range(len(record.writers))]
    if [(part.rank, part.path) for part in parts] != places:
        raise CheckpointError(f"its parts are not those of {len(places)} ranks")
    return parts
