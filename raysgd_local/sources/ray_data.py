"""Data sets of Ray Data. Ray is imported only here, and only when such a data set is used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raysgd_local.errors import InputError, ShardError
from raysgd_local.sources.reading import STORAGE, read


@dataclass(frozen=True)
class Block:
    """A block, or the part of one that belongs to the data set."""

    reference: Any  # ray.ObjectRef
    begin: int  # of its rows
    end: int


class RayData:
    """A `ray.data.Dataset`, computed once: its blocks in Ray's object store are shards, its rows dicts.

    Made in the process that owns the data set, it can be sent to workers, which read the same blocks. Blocks keep the
    order of the data.
    """

    def __init__(self, dataset: Any) -> None:
        from ray.experimental import get_object_locations

        dataset.context.execution_options.preserve_order = True  # a resumed run must find the same blocks
        computed = dataset.materialize()
        self._blocks = {
            f"block-{number:06}": block
            for number, block in enumerate(
                Block(reference, *((part.start_offset, part.end_offset) if part else (0, metadata.num_rows)))
                for bundle in computed.iter_internal_ref_bundles()
                for reference, metadata, part in zip(
                    bundle.block_refs, bundle.metadata, bundle.slices, strict=True
                )
            )
        }
        places = get_object_locations([block.reference for block in self._blocks.values()])
        self._process = os.getpid()
        self._nodes = {name: tuple(places[block.reference]["node_ids"]) for name, block in self._blocks.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _process=os.getpid())

    def shards(self) -> Sequence[str]:
        return tuple(self._blocks)

    def rows(self, shard: str) -> int | None:
        block = self._block(shard, 0)
        return block.end - block.begin

    def nodes(self, shard: str) -> tuple[str, ...]:
        """Return the ids of the nodes that had the block when the data set was computed; none for a small block."""
        return self._nodes[shard]

    def open(self, shard: str, start: int) -> Iterator[Any]:
        from ray.exceptions import RayError

        return read(shard, start, lambda: (start, self._rows(shard, start)), dict, (*STORAGE, RayError))

    def _rows(self, shard: str, start: int) -> Iterator[Any]:
        import ray
        from ray.data.block import BlockAccessor

        if os.getpid() != self._process:
            allowed = "to read in the process of a worker or a driver of Ray"
            hint = "Ray's objects can't be reached from there: leave out the DataLoader's num_workers"
            raise InputError("dataset", "a data set of Ray Data in a process of a DataLoader", allowed, hint)
        block = self._block(shard, start)
        content = BlockAccessor.for_block(ray.get(block.reference))
        rest = content.slice(min(block.begin + start, block.end), block.end)
        return iter(BlockAccessor.for_block(rest).iter_rows(public_row_format=True))

    def _block(self, shard: str, start: int) -> Block:
        if shard not in self._blocks:
            raise ShardError(shard, start, "the data set has no such block")
        return self._blocks[shard]
