"""Data sets of Ray Data: blocks in the object store are shards."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from torch.utils.data import DataLoader, IterableDataset

from raysgd_local.errors import InputError, ShardError
from raysgd_local.sources import RayData, as_source

pytestmark = pytest.mark.ray


def test_blocks_are_shards_of_known_length_that_any_process_reads(cluster):
    import ray

    dataset = ray.data.range(1000, override_num_blocks=7).map(
        lambda row: {"id": row["id"], "square": row["id"] ** 2}
    )
    with pytest.raises(InputError, match="not computed"):  # each worker would compute its own
        as_source(dataset)
    source = as_source(dataset.materialize())
    assert type(source) is RayData
    rows = {shard: list(source.open(shard, 0)) for shard in source.shards()}
    assert len(rows) >= 7  # Ray rounds it
    assert {shard: source.rows(shard) for shard in rows} == {shard: len(found) for shard, found in rows.items()}
    assert sorted(row["id"] for found in rows.values() for row in found) == list(range(1000))
    assert rows["block-000000"][3]["square"] == rows["block-000000"][3]["id"] ** 2
    for shard, found in rows.items():
        for start in (0, 1, 77, len(found) - 1, len(found), len(found) + 5):
            assert list(source.open(shard, start)) == found[start:]

    @ray.remote
    def read(source, shard, start):
        return list(source.open(shard, start))

    assert ray.get(read.remote(source, "block-000003", 5)) == rows["block-000003"][5:]


def test_the_nodes_of_a_block_are_those_that_have_its_bytes(cluster):
    import ray

    source = RayData(ray.data.from_numpy([np.zeros((1000, 100)), np.ones((1000, 100))]))
    nodes = {node["NodeID"] for node in ray.nodes()}  # other tests may have added some
    assert {node for shard in source.shards() for node in source.nodes(shard)} <= nodes
    large = RayData(ray.data.range_tensor(4000, shape=(100,), override_num_blocks=2))
    for shard in large.shards():
        assert large.nodes(shard)
        assert set(large.nodes(shard)) <= nodes
    row = next(large.open("block-000000", 7))
    assert row["data"].shape == (100,)


def test_a_block_that_is_none_of_the_data_sets_is_named(cluster):
    import ray

    source = RayData(ray.data.range(10, override_num_blocks=1))
    with pytest.raises(ShardError, match="shard 'block-000009' can't be read at row 0"):
        list(source.open("block-000009", 0))


def test_a_data_set_whose_blocks_are_tables_of_pandas_has_the_same_rows(cluster):
    import pandas as pd
    import ray

    source = RayData(ray.data.from_pandas(pd.DataFrame({"id": range(20)})))
    (shard,) = source.shards()
    assert [row["id"] for row in source.open(shard, 4)] == list(range(4, 20))


def test_a_data_set_of_no_rows_has_none(cluster):
    import ray

    source = RayData(ray.data.range(10, override_num_blocks=2).filter(lambda row: False))
    assert [row for shard in source.shards() for row in source.open(shard, 0)] == []


def test_parts_of_blocks_are_shards_too(cluster):
    import ray

    halves = ray.data.range(100, override_num_blocks=1).materialize().split_at_indices([30])
    whole = [ray.data.range(100, override_num_blocks=3).limit(50), *halves]
    for dataset, expected in zip(whole, (range(50), range(30), range(30, 100)), strict=True):
        source = RayData(dataset)
        rows = {shard: [row["id"] for row in source.open(shard, 0)] for shard in source.shards()}
        assert sorted(chain.from_iterable(rows.values())) == list(expected)
        for shard, found in rows.items():
            assert source.rows(shard) == len(found)
            assert [row["id"] for row in source.open(shard, 7)] == found[7:]


class OfOneShard(IterableDataset):
    def __init__(self, source):
        self.source = source

    def __iter__(self):
        return self.source.open("block-000000", 0)


def test_a_process_of_a_loader_is_told_that_it_cant_reach_blocks(cluster):
    import ray

    source = RayData(ray.data.range(10, override_num_blocks=1))
    loader = DataLoader(OfOneShard(source), batch_size=None, num_workers=1)
    with pytest.raises(RuntimeError, match="in a process of a DataLoader' is not allowed"):
        list(loader)
    assert len(list(DataLoader(OfOneShard(source), batch_size=None))) == 10
