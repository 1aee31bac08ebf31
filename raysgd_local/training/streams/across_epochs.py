"""Read a list that goes across epochs, part by part."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.lengths import merged
from raysgd_local.control.data.streams.parts import PART, part, parts
from raysgd_local.training.streams.batching import StreamBatch

Batches = Generator[StreamBatch, None, None]

ReadPart = Callable[[StreamDeal, int], Batches]
"""Yields the batches of the list of a deal of one epoch, from a position on."""


def list_batches(deal: StreamDeal, start: int, epoch: int, read: ReadPart) -> Batches:
    """Yield the batches of a list from position `start` to the end of `epoch`, or of the only one it has.

    No batch has samples of two parts. A part without any samples is consumed with the next batch.
    """
    if not deal.epochs:
        yield from read(deal, start)
        return
    first, position = divmod(start, PART)
    stop = min(epoch - deal.epoch + 1, parts(deal))
    found: dict[int, int] = {}
    for index in range(first, stop):
        for batch in read(part(deal, index), position):
            cursor = PART if batch.last else batch.cursor
            found = merged(found, batch.found)
            if batch.count or index == stop - 1:
                yield replace(batch, cursor=index * PART + cursor, last=False, found=found)
                found = {}
        position = 0
