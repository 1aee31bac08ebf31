"""A reader's memory doesn't grow with its data."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

READ = """
import resource, sys
from raysgd_local import sources

source = sources.files(sys.argv[1])
(shard,) = source.shards()
rows = sum(1 for _ in source.open(shard, 0))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
TEXT = 1500  # bytes in a row


def write(path, rows: int, group: int) -> None:
    letters = np.random.default_rng(0).integers(97, 122, rows * TEXT, dtype=np.uint8)
    offsets = np.arange(0, (rows + 1) * TEXT, TEXT, dtype=np.int64)
    texts = pa.LargeStringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(letters))
    pq.write_table(pa.table({"text": texts}), path, row_group_size=group, compression="none", use_dictionary=False)


def memory_mb(path, rows: int) -> float:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    read, kilobytes = map(int, done.stdout.split())
    assert read == rows
    return kilobytes / 1024


@pytest.mark.parametrize("group", [pytest.param(1000, marks=pytest.mark.long), 100_000])
def test_a_large_parquet_file_takes_no_more_than_a_small_one(tmp_path, group):
    write(tmp_path / "small.parquet", 5_000, group)
    write(tmp_path / "large.parquet", 100_000, group)  # 150 MB, in many row groups or in one
    small, large = memory_mb(tmp_path / "small.parquet", 5_000), memory_mb(tmp_path / "large.parquet", 100_000)
    assert large < small + 50
