"""Shards of a gigabyte: a loop's memory doesn't grow with them, and reading begins in their middle at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

TEXT = 1500  # bytes in a row
TRAIN = """
import resource, sys
import torch
import raysgd_local

ctx = raysgd_local.get_context()
model = ctx.prepare_model(torch.nn.Linear(1, 1))
ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=1e-3))
rows = 0
for _ in ctx.epochs(1):
    for batch in ctx.batches(sys.argv[1], batch_size=256, transform=lambda row: len(row["text"])):
        rows += len(batch)
        loss = model(batch[:1, None].float()).sum()
        loss.backward()
        ctx.step(loss)
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
RESUME = """
import sys, time
from raysgd_local import sources
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.training.streams.loading import StreamedBatches

source = sources.files(sys.argv[1])
start = int(sys.argv[2])
deal = StreamLedger.of([None]).open_epoch(0).deal(0, seed=7, shares=(1.0,))
began_s = time.perf_counter()
batches = StreamedBatches(source, 8, (), {})
batches.deal(deal, 0, start, ((0, -1 - start - 2048),))  # it has so many rows at least
found = batches.next()
print(time.perf_counter() - began_s, sorted(found.batch["id"].tolist())[0])
"""
pytestmark = [pytest.mark.long, pytest.mark.study]


def run(code: str, *arguments: object) -> list[float]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    return [float(word) for word in done.stdout.split()]


def write_parquet(folder: Path, files: int, rows: int) -> None:
    folder.mkdir()
    letters = np.random.default_rng(0).integers(97, 122, rows * TEXT, dtype=np.uint8)
    offsets = np.arange(0, (rows + 1) * TEXT, TEXT, dtype=np.int64)
    texts = pa.table(
        {"text": pa.LargeStringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(letters))}
    )
    for number in range(files):
        options = {"row_group_size": 1000, "compression": "none", "use_dictionary": False}
        parquet.write_table(texts, folder / f"{number}.parquet", **options)


@pytest.mark.timeout(1200)
def test_a_loop_over_two_gigabytes_takes_no_more_memory_than_over_twenty_megabytes(tmp_path):
    write_parquet(tmp_path / "small", files=8, rows=1_700)
    write_parquet(tmp_path / "large", files=8, rows=170_000)
    small, large = run(TRAIN, tmp_path / "small"), run(TRAIN, tmp_path / "large")
    assert (small[0], large[0]) == (8 * 1_700, 8 * 170_000)
    print(f"{small[1] / 1024:.0f} and {large[1] / 1024:.0f} MB")
    assert large[1] - small[1] < 200 * 1024


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_reading_begins_in_the_middle_of_a_gigabyte_within_two_seconds(tmp_path, kind):
    rows, text = 650_000, "x" * TEXT
    file = tmp_path / f"large.{kind}"
    if kind == "jsonl":
        with open(file, "w") as lines:
            lines.writelines(f'{{"id": {row}, "text": "{text}"}}\n' for row in range(rows))
    else:
        table = pa.table({"id": np.arange(rows), "text": [text] * rows})
        parquet.write_table(table, file, compression="none", use_dictionary=False, row_group_size=10_000)
    assert file.stat().st_size > 0.9e9
    seconds, first = run(RESUME, file, rows // 2)
    print(f"{seconds:.2f} s")
    assert seconds < 2
    assert abs(first - rows // 2) < 2048
