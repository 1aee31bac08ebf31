"""Data sets of Ray Data. Ray is imported only here, and only when such a data set is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from raysgd_local.errors import ShardError
from raysgd_local.sources.reading import STORAGE, read


class RayData:
    """A `ray.data.Dataset`, computed once: its blocks in Ray's object store are shards, its rows dicts.

    Made in the process that owns the data set, it can be sent to workers, which read the same blocks.
    """

    def __init__(self, dataset: Any) -> None:
        from ray.experimental import get_object_locations

        blocks = [
            (block, metadata.num_rows)
            for bundle in dataset.materialize().iter_internal_ref_bundles()
            for block, metadata in bundle.blocks
        ]
        places = get_object_locations([block for block, _ in blocks])
        self._blocks = {
            f"block-{number:06}": (block, rows, tuple(places[block]["node_ids"]))
            for number, (block, rows) in enumerate(blocks)
        }

    def shards(self) -> Sequence[str]:
        return tuple(self._blocks)

    def rows(self, shard: str) -> int | None:
        rows: int | None = self._blocks[shard][1]
        return rows

    def nodes(self, shard: str) -> tuple[str, ...]:
        """Return the ids of the nodes that had the block when the data set was computed; none for a small block."""
        return self._blocks[shard][2]

    def open(self, shard: str, start: int) -> Iterator[Any]:
        from ray.exceptions import RayError

        return read(shard, start, lambda: (start, self._rows(shard, start)), dict, (*STORAGE, RayError))

    def _rows(self, shard: str, start: int) -> Iterator[Any]:
        import ray
        from ray.data.block import BlockAccessor

        if shard not in self._blocks:
            raise ShardError(shard, start, "the data set has no such block")
        block = BlockAccessor.for_block(ray.get(self._blocks[shard][0]))
        rest = BlockAccessor.for_block(block.slice(start, max(start, block.num_rows())))
        return iter(rest.iter_rows(public_row_format=True))
