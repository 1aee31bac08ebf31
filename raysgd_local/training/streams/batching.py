"""Make batches of a list's rows, and count which rows are consumed with each batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from raysgd_local.control.data.streams.row_count import RowCount
from raysgd_local.sources.transform import Chain, Step
from raysgd_local.training.streams.rows import ListRows


@dataclass
class StreamBatch:
    """Samples for one step, and the position in the list behind them."""

    samples: Any  # a list, or what `collate_fn` makes of it; None if the list ended without a sample
    count: int  # number of samples
    cursor: int  # rows of the list that are consumed once steps were taken on this batch and all before it
    split: int  # rows after these of which such samples have a part
    last: bool = False  # the list ends with this batch
    found: dict[int, int] = field(default_factory=dict)  # lengths of shards found out on the way, and bounds
    skipped: dict[str, int | None] = field(default_factory=dict)  # shards that broke, and how many rows each lacks


def batches(rows: ListRows, steps: Sequence[Step], batch_size: int, cursor: int) -> Iterator[StreamBatch]:
    """Yield the batches of `rows`, which begin at `cursor` of their list. The last one says so.

    A last batch smaller than half a batch is joined to the one before. If there is no sample at all, yield one batch
    without samples.
    """
    ready: StreamBatch | None = None
    for batch in _whole(rows, steps, batch_size, cursor):
        if ready is None:
            ready = batch
        elif batch.last and 2 * batch.count < batch_size:
            ready = _joined(ready, batch)
        else:
            yield ready
            ready = batch
    if ready is not None:
        yield ready


def _joined(first: StreamBatch, rest: StreamBatch) -> StreamBatch:
    samples, count = first.samples + (rest.samples or []), first.count + rest.count
    return StreamBatch(samples, count, rest.cursor, rest.split, rest.last, {**first.found, **rest.found})


def _whole(rows: ListRows, steps: Sequence[Step], batch_size: int, cursor: int) -> Iterator[StreamBatch]:
    """Yield batches of `batch_size` samples, and at last the rest, which may be none."""
    chain = Chain(steps)
    return (_kept if chain.keeps else _of_rows)(rows, chain, batch_size, cursor)


def _of_rows(rows: ListRows, chain: Chain, batch_size: int, cursor: int) -> Iterator[StreamBatch]:
    """Yield batches of samples of one row each, of which nothing is kept: several rows at a time."""
    samples: list[Any] = []
    consumed = read = cursor
    while values := rows.take(batch_size - len(samples)):
        made = chain.each(values)
        samples += [sample for _, sample in made]
        consumed = read + made[-1][0] + 1 if made else consumed
        read += len(values)
        if len(samples) == batch_size:
            yield StreamBatch(samples, len(samples), consumed, 0, found=rows.news())
            samples = []
    yield StreamBatch(samples or None, len(samples), read, 0, last=True, found=rows.news())


def _kept(rows: ListRows, chain: Chain, batch_size: int, cursor: int) -> Iterator[StreamBatch]:
    """Yield batches where a transform may keep a part of a row."""
    counted = RowCount(cursor)
    samples: list[Any] = []
    for sample in _samples(rows, chain, counted, cursor):
        samples.append(sample)
        if len(samples) == batch_size:
            yield _batch(samples, rows, counted)
            samples = []
    ended = counted.after(counted.samples)
    yield StreamBatch(samples or None, len(samples), ended.rows, 0, last=True, found=rows.news())


def _batch(samples: list[Any], rows: ListRows, counted: RowCount) -> StreamBatch:
    counted.forget(counted.samples)
    behind = counted.after(counted.samples)
    return StreamBatch(samples, len(samples), behind.rows, behind.split, found=rows.news())


def _samples(rows: ListRows, chain: Chain, counted: RowCount, cursor: int) -> Iterator[Any]:
    """Yield the samples that the transforms make, after each has been counted."""
    row = cursor - 1
    for row, value in enumerate(rows, start=cursor):
        first = chain.oldest
        made = chain.feed(row, value)
        oldest = chain.oldest
        for left, sample in zip(range(len(made) - 1, -1, -1), made, strict=True):
            complete = row if left else row + 1 if oldest is None else min(oldest, row + 1)
            counted.emitted(range(row if first is None else first, row + 1), complete)
            yield sample
    left_over = chain.end()
    for sample in left_over[:-1]:
        counted.emitted(range(row, row + 1), row)
        yield sample
    if left_over:
        counted.emitted((), row + 1)
        yield left_over[-1]
    counted.ended(row + 1)
