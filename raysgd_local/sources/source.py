"""The interface of a source: named shards of rows that can be opened anywhere, at any row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from raysgd_local.errors import InputError


@runtime_checkable
class Source(Protocol):
    """A list of named shards, each an ordered sequence of rows.

    Every worker opens shards by itself, so all of them must see the same shards with the same rows, however often a
    shard is opened: `list(open(s, n)) == list(open(s, 0))[n:]`. A source that knows where the bytes of a shard lie
    may have a method `nodes(shard)`, which returns the ids of Ray's nodes. One whose `rows` has to read the shard may
    have a true attribute `reads_to_count`: then lengths are asked for only where they are needed.
    """

    def shards(self) -> Sequence[str]:
        """Return the shards' names, in an order that is the same on all machines and at all times."""

    def rows(self, shard: str) -> int | None:
        """Return the number of rows; None if it is known only when the shard was read to its end."""

    def open(self, shard: str, start: int) -> Iterator[Any]:
        """Iterate over the rows from number `start`, counted from 0. Raises `ShardError` for one that can't be read."""


def shard_names(source: Source) -> tuple[str, ...]:
    """Return the names of a source's shards. Raises `InputError` if there are none, or a name is used twice."""
    names = tuple(source.shards())
    kind = type(source).__name__
    if not names:
        raise InputError("shards", f"none in {kind}", "at least one shard")
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise InputError("shards", wrong[0], "names that are strings", f"by {kind}.shards()")
    if len(set(names)) < len(names):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise InputError("shards", twice, "names of which none is used twice", f"by {kind}.shards()")
    return names
