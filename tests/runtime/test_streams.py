"""Streams on the real shells: each row once an epoch, whatever dies, joins, resumes, is filtered or packed."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
import torch
from torch import nn

import raysgd_local
from raysgd_local.algorithms.schedules import EveryStep, FixedPeriod


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

    def __init__(self, source, epochs=2, batch_size=4, transform=None, **options):
        self.source, self.epochs, self.batch_size, self.transform = source, epochs, batch_size, transform
        self.options = options
        self.seen: dict[int, Counter[int]] = {epoch: Counter() for epoch in range(epochs)}
        self.steps, self.lock = Counter(), threading.Lock()

    def __call__(self):
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(nn.Linear(1, 1))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=1e-9))
        for epoch in ctx.epochs(self.epochs):
            for batch in ctx.batches(self.source, self.batch_size, transform=self.transform, **self.options):
                values = batch.reshape(-1, 1).float()
                loss = model(values).mean()
                loss.backward()
                self.stepping(ctx)
                ctx.step(loss)
                with self.lock:
                    self.seen[epoch].update(batch.reshape(-1).tolist())
                    self.steps[ctx._shell.place.worker] += 1

    def stepping(self, ctx):
        """Called before each step."""


SOURCES = {
    "unknown lengths": Numbers([30, 7, 0, 55, 12, 41]),
    "known lengths": Numbers([30, 7, 0, 55, 12, 41], known=True),
    "fewer shards than workers": Numbers([60, 50]),
    "one empty": Numbers([0, 90]),
}


def settled(done, lost=0, repeated=0):
    assert done.result["status"] == "finished", done.outcome.finish
    assert (done.result["samples_lost"], done.result["samples_repeated"]) == (lost, repeated)


@pytest.mark.parametrize("schedule", [FixedPeriod(3), EveryStep()], ids=["local", "every step"])
@pytest.mark.parametrize("name", SOURCES)
def test_each_row_is_trained_on_once_an_epoch(train_in_threads, name, schedule):
    loop = Loop(SOURCES[name])
    done = train_in_threads(loop, workers=3, schedule=schedule, settings={"shuffle_window": 8, "interleave": 2})
    settled(done)
    for seen in loop.seen.values():
        assert seen == Counter(SOURCES[name].all())
    assert min(loop.steps.values()) > 0.5 * max(loop.steps.values())


class Dies(Loop):
    """One worker dies at a step, in the midst of a round."""

    def __init__(self, *args, killed, at=5, **options):
        super().__init__(*args, **options)
        self.killed, self.at, self.count = killed, at, 0
        self.dead: list[int] = []

    def stepping(self, ctx):
        with self.lock:
            self.count += 1
            dies = self.count >= self.at and not self.dead
            if dies:
                self.dead.append(1)
        if dies:
            raise self.killed


@pytest.mark.parametrize("at", [1, 4, 7, 11, 16])
@pytest.mark.parametrize("name", SOURCES)
def test_no_row_is_lost_with_a_worker_that_dies(train_in_threads, killed, name, at):
    loop = Dies(SOURCES[name], killed=killed, at=at)
    done = train_in_threads(
        loop,
        workers=3,
        schedule=FixedPeriod(3),
        settings={"shuffle_window": 8, "interleave": 2, "workers_min": 1},
    )
    settled(done)
    assert loop.dead
    for seen in loop.seen.values():
        assert set(seen) == SOURCES[name].all()  # steps that were not committed are taken again
