"""Rows a second of a stream in `ctx.batches` and in a plain DataLoader: the same files, the same transform.

python benchmarks/stream_throughput.py                  # JSON lines and Parquet, in the training process
python benchmarks/stream_throughput.py --num-workers 1  # read by one process of a DataLoader

Prints one line for each format: the median over `--repeats` pairs of runs of plain time / time of `ctx.batches`, where
a time is how long the loop's thread computes to get its batches, or with --num-workers how long it waits for them. A
round has 64 steps: what a round costs is another benchmark's question (round_overhead.py).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from raysgd_local import sources
from raysgd_local.training.standalone import alone

WORDS, BATCH, PERIOD = 40, 32, 64


def tokens_of(row: dict[str, Any]) -> Any:
    """A tokeniser of the cheapest kind: one number a word. (40,) int64."""
    return np.array([len(word) for word in row["text"].split()], dtype=np.int64)


class Plain(IterableDataset[Any]):
    """The same files, one after the other."""

    def __init__(self, source: sources.Source) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        for shard in self.source.shards():
            for row in self.source.open(shard, 0):
                yield tokens_of(row)


def write(folder: Path, rows: int, shards: int) -> None:
    draw = np.random.default_rng(0)
    for shard in range(shards):
        texts = [" ".join("x" * length for length in draw.integers(1, 9, WORDS)) for _ in range(rows // shards)]
        lines = (json.dumps({"id": number, "text": text}) for number, text in enumerate(texts))
        (folder / "jsonl" / f"{shard:03}.jsonl").write_text("\n".join(lines) + "\n")
        parquet.write_table(pa.table({"text": texts}), folder / "parquet" / f"{shard:03}.parquet")


def train(
    batches: Callable[[], Iterator[torch.Tensor]],
    step: Callable[[torch.Tensor], None],
    clock: Callable[[], float],
) -> float:
    """Return the seconds by `clock` that a loop takes to get its batches, its steps excluded."""
    spent_s, began_s = 0.0, clock()
    for batch in batches():
        spent_s += clock() - began_s
        step(batch)
        began_s = clock()
    return spent_s + clock() - began_s


def compare(folder: Path, num_workers: int) -> float:
    """Return plain time / time of `ctx.batches`, for one pass each with the same small model."""
    source = sources.files(folder)
    clock = time.perf_counter if num_workers else time.thread_time
    model = nn.Linear(WORDS, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)

    def plain_step(batch: torch.Tensor) -> None:
        model(batch.float()).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    plain_s = train(lambda: iter(DataLoader(Plain(source), BATCH, num_workers=num_workers)), plain_step, clock)
    ctx = alone(period=PERIOD)
    own = ctx.prepare_model(nn.Linear(WORDS, 1))
    ctx.prepare_optimizer(torch.optim.SGD(own.parameters(), lr=1e-9))

    def step(batch: torch.Tensor) -> None:
        loss = own(batch.float()).mean()
        loss.backward()
        ctx.step(loss)

    own_s = 0.0
    for _ in ctx.epochs(1):
        own_s = train(
            lambda: ctx.batches(source, BATCH, transform=tokens_of, num_workers=num_workers), step, clock
        )
    return plain_s / own_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for kind in ("jsonl", "parquet"):
            (folder / kind).mkdir()
        write(folder, options.rows, options.shards)
        for kind in ("jsonl", "parquet"):
            ratios = [compare(folder / kind, options.num_workers) for _ in range(options.repeats)]
            print(f"{kind}: {statistics.median(ratios):.3f} of a plain DataLoader's rows a second", flush=True)


if __name__ == "__main__":
    main()
