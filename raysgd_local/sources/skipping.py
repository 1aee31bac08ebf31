"""End shards that can't be read where they break, and go on with the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from raysgd_local.errors import ShardError
from raysgd_local.sources.source import Source


class SkippingBad:
    """A source whose shards end at the first row that can't be read.

    For a shard to have the same rows whenever it is read, rows before `start` have to be read as well, once in each
    process; and lengths are known only when a shard was read to its end.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._good: dict[str, int] = {}  # rows that were read without an error, in this process
        self._ended: set[str] = set()  # shards of which these are all
        self._bad: set[str] = set()  # shards of these that broke there

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "_good": {}, "_ended": set(), "_bad": set()}

    def shards(self) -> Sequence[str]:
        return self.source.shards()

    def rows(self, shard: str) -> int | None:
        return self._good[shard] if shard in self._ended else None

    def nodes(self, shard: str) -> tuple[str, ...]:
        """Return the nodes on which the shard lies; none if the source doesn't say."""
        nodes = getattr(self.source, "nodes", None)
        return () if nodes is None else tuple(nodes(shard))

    def open(self, shard: str, start: int) -> Iterator[Any]:
        good = self._good.setdefault(shard, 0)
        if shard in self._ended and start >= good:
            return
        row = min(start, good)
        try:
            for value in self.source.open(shard, row):
                if shard in self._ended and row >= self._good[shard]:
                    return
                row += 1
                self._good[shard] = max(self._good[shard], row)
                if row > start:
                    yield value
            self._ended.add(shard)
        except ShardError:
            self._ended.add(shard)
            self._bad.add(shard)

    def skipped(self) -> dict[str, int | None]:
        """Return the shards that broke in this process, and how many rows each lacks; None where nothing tells it."""
        return {shard: self._lacks(shard) for shard in sorted(self._bad)}

    def _lacks(self, shard: str) -> int | None:
        try:
            rows = self.source.rows(shard)
        except ShardError:
            return None
        return None if rows is None else max(0, rows - self._good[shard])
