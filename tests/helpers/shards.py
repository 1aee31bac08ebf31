"""What every source has to do: the same rows from any start, also after it was pickled."""

from __future__ import annotations

import pickle
import random
from typing import Any

import pytest

from raysgd_local.errors import ShardError
from raysgd_local.sources import Source, shard_names


def rows_of(source: Source) -> dict[str, list[Any]]:
    return {shard: list(source.open(shard, 0)) for shard in shard_names(source)}


def check_starts(source: Source, starts: int = 5, same: Any = lambda a, b: a == b) -> dict[str, list[Any]]:
    """Assert that every shard can be opened anywhere, by this object and by a new one; return all rows."""
    everything = rows_of(source)
    draw = random.Random(0)
    for shard, rows in everything.items():
        assert source.rows(shard) in (None, len(rows))
        chosen = {0, len(rows), len(rows) + 3, *(draw.randint(0, len(rows)) for _ in range(starts))}
        for start in sorted(chosen, key=lambda _: draw.random()):
            for reader in (source, pickle.loads(pickle.dumps(source))):
                assert same(list(reader.open(shard, start)), rows[start:]), (shard, start)
    return everything


def broken_at(source: Source, shard: str, start: int = 0) -> tuple[list[Any], ShardError]:
    """Read a shard that breaks: the rows before, and the error, which names the row that follows them."""
    rows = []
    reading = source.open(shard, start)
    with pytest.raises(ShardError) as caught:
        rows.extend(iter(reading))
    assert (caught.value.shard, caught.value.row) == (shard, start + len(rows))
    assert repr(shard) in str(caught.value)
    assert f"row {caught.value.row}" in str(caught.value)
    assert caught.value.exit_status == 2
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.shard, copy.row) == (str(caught.value), shard, caught.value.row)
    return rows, caught.value
