"""A source of numbered rows, and loops that train on it and count what they saw."""

from __future__ import annotations

import copy
import itertools
import threading
from collections import Counter

import torch
from torch import nn

import raysgd_local


class Numbers:
    """Shards of numbered rows: row r of shard s is 1000·s + r. Their lengths are told, or found out by reading."""

    def __init__(self, lengths, known=False):
        self.lengths, self.known = lengths, known

    def shards(self):
        return [f"part-{number}" for number in range(len(self.lengths))]

    def rows(self, shard):
        return self.lengths[int(shard[5:])] if self.known else None

    def open(self, shard, start):
        number = int(shard[5:])
        return iter(range(1000 * number + start, 1000 * number + self.lengths[number]))

    def all(self):
        return {1000 * number + row for number, length in enumerate(self.lengths) for row in range(length)}


class Loop:
    """Trains on numbers, and counts by epoch the values of its steps."""

    def __init__(self, source, epochs=2, batch_size=4, transform=None, most=lambda ctx: None, lr=1e-9, **options):
        """`most`: of a worker's batches that are trained on in an epoch; the loop leaves the others."""
        self.source, self.epochs, self.batch_size, self.transform = source, epochs, batch_size, transform
        self.options, self.most, self.lr = options, most, lr
        torch.manual_seed(0)
        self.initial = nn.Linear(1, 1)  # in one thread: they share the random generator
        self.seen: dict[int, Counter[int]] = {epoch: Counter() for epoch in range(epochs)}
        self.steps, self.lock = Counter(), threading.Lock()

    def __call__(self):
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(copy.deepcopy(self.initial))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=self.lr))
        for epoch in ctx.epochs(self.epochs):
            batches = ctx.batches(self.source, self.batch_size, transform=self.transform, **self.options)
            for batch in itertools.islice(batches, self.most(ctx)):
                values = batch.reshape(-1, 1).float()
                loss = model(values).mean()
                loss.backward()
                self.stepping(ctx, batch)
                ctx.step(loss)
                with self.lock:
                    self.seen[epoch].update(batch.reshape(-1).tolist())
                    self.steps[ctx._shell.place.worker] += 1
            self.epoch_over(ctx)

    def stepping(self, ctx, batch):
        """Called before each step."""

    def epoch_over(self, ctx):
        """Called after the batches of each epoch."""


def settled(done, lost=0, repeated=0):
    """Assert that the run has finished, and what its ledger counts."""
    assert done.result["status"] == "finished", done.outcome.finish
    assert (done.result["samples_lost"], done.result["samples_repeated"]) == (lost, repeated)
