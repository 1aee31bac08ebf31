"""Find out how long shards are whose length nobody knows."""

from __future__ import annotations

from raysgd_local.sources.source import Source


def measured(source: Source, shard: str, enough: int) -> int:
    """Return a shard's length, or −1 − `enough` if it has at least so many rows. Raises `ShardError`."""
    length = source.rows(shard)
    if length is not None:
        return int(length)
    rows = 0
    for _ in source.open(shard, 0):
        rows += 1
        if rows >= enough:
            return -1 - enough
    return rows
