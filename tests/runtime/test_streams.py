"""Streams on the real shells: each row once an epoch, whatever dies, joins, resumes, is filtered or packed."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
import torch
from stream_loops import Loop, Numbers, settled
from torch import nn
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local.algorithms.schedules import EveryStep, FixedPeriod
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.errors import ShardError
from raysgd_local.sources import Pack

SOURCES = {
    "unknown lengths": Numbers([30, 7, 0, 55, 12, 41]),
    "known lengths": Numbers([30, 7, 0, 55, 12, 41], known=True),
    "fewer shards than workers": Numbers([60, 50]),
    "one empty": Numbers([0, 90]),
}


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

    def stepping(self, ctx, batch):
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


class Resumes(Loop):
    """Asks to stop in the midst of the first epoch."""

    def __init__(self, *args, stop_at, **options):
        super().__init__(*args, **options)
        self.stop_at = stop_at

    def stepping(self, ctx, batch):
        if self.stop_at and ctx._shell.steps == self.stop_at:
            ctx.stop()


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("name", SOURCES)
def test_a_run_that_resumes_with_any_number_of_workers_goes_on_in_the_midst_of_shards(
    train_in_threads, tmp_path, name, workers
):
    source, settings = SOURCES[name], {"shuffle_window": 8, "interleave": 2}
    first = Resumes(source, epochs=1, stop_at=4)
    policy = CheckpointPolicy(every_epochs=None)
    done = train_in_threads(first, workers=2, schedule=FixedPeriod(2), settings=settings, policy=policy)
    assert done.result["reason"] == "stopped by the training loop"
    trained = first.seen[0]
    assert max(trained.values()) == 1
    assert 0 < len(trained) < len(source.all())
    plain = json.loads(next((tmp_path / "run" / "checkpoints").glob("*/manifest.json")).read_text())
    plain["replicated"]["stopped"] = ""
    plain.pop("sha256", None)
    rest = Loop(source, epochs=1)
    done = train_in_threads(
        rest, workers=workers, schedule=FixedPeriod(2), settings=settings, policy=policy, resume=plain
    )
    settled(done)
    assert trained + rest.seen[0] == Counter(source.all())


def test_samples_are_made_of_rows_where_they_are_read(train_in_threads):
    def long(row):
        return [row] * (1 + row % 3)

    loop = Loop(SOURCES["unknown lengths"], transform=[long, Pack(3)], num_workers=1)
    done = train_in_threads(loop, workers=2, schedule=FixedPeriod(3), settings={"shuffle_window": 8})
    settled(done)
    for seen in loop.seen.values():
        lacking = {row: 1 + row % 3 - seen[row] for row in SOURCES["unknown lengths"].all()}
        assert min(lacking.values()) == 0
        assert sum(lacking.values()) <= 2 * 2  # the rests of two lists


def test_rows_that_a_loop_leaves_early_are_dealt_to_the_others(train_in_threads):
    class Early(Loop):
        def __call__(self):
            ctx = raysgd_local.get_context()
            model = ctx.prepare_model(nn.Linear(1, 1))
            ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=1e-9))
            for epoch in ctx.epochs(self.epochs):
                for number, batch in enumerate(ctx.batches(self.source, self.batch_size)):
                    if ctx.rank == 0 and number == 2:
                        break
                    loss = model(batch.reshape(-1, 1).float()).mean()
                    loss.backward()
                    ctx.step(loss)
                    with self.lock:
                        self.seen[epoch].update(batch.reshape(-1).tolist())

    loop = Early(SOURCES["unknown lengths"])
    done = train_in_threads(loop, workers=3, schedule=FixedPeriod(2), settings={"shuffle_window": 8})
    settled(done)
    for seen in loop.seen.values():
        assert seen == Counter(SOURCES["unknown lengths"].all())


def refused(train_in_threads, loop, match, **options):
    done = train_in_threads(loop, workers=2, schedule=FixedPeriod(2), **options)
    error = done.outcome.refused
    assert error is not None, done.outcome.finish
    assert error.exit_status == 2
    assert re.search(match, str(error)), str(error)


def test_a_shard_that_cannot_be_read_is_named(train_in_threads):
    class Broken(Numbers):
        def open(self, shard, start):
            yield from super().open(shard, start)
            if shard == "part-3":
                raise ShardError(shard, 55, "it is cut off")

    refused(train_in_threads, Loop(Broken([30, 7, 0, 55])), "part-3")
    skips = Loop(Broken([30, 7, 0, 55]), on_bad_shard="skip")
    done = train_in_threads(skips, workers=2, schedule=FixedPeriod(2))
    settled(done)
    assert skips.seen[0] == Counter(Numbers([30, 7, 0, 55]).all())
    logged = [fields for link in done.group.links.values() for fields in link.logged]
    assert {fields["shard_skipped"] for fields in logged} == {"part-3"}


def test_workers_with_other_shards_are_told(train_in_threads):
    class Other(Numbers):
        def shards(self):
            here = raysgd_local.get_context()._shell.place.worker
            return [*super().shards(), *(["more"] if here == "w1" else [])]

        def rows(self, shard):
            return None

        def open(self, shard, start):
            return super().open(shard, start) if shard != "more" else iter(())

    refused(train_in_threads, Loop(Other([30, 40])), "the same on all workers")


def test_a_transform_that_makes_nothing_is_told(train_in_threads):
    nothing = Loop(SOURCES["unknown lengths"], transform=lambda row: None)
    refused(train_in_threads, nothing, "transform.*one that makes samples")


def test_a_path_without_files_is_told(train_in_threads, tmp_path):
    refused(train_in_threads, Loop(str(tmp_path / "nowhere" / "*.jsonl")), "path")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_workers": 1, "sampler": object()}, "sampler"),
        ({"drop_last": True}, "drop_last"),
        ({"on_bad_shard": "ignore"}, "on_bad_shard"),
        ({"transform": 7}, "transform"),
    ],
)
def test_options_that_mean_nothing_for_a_stream_are_refused(train_in_threads, options, match):
    refused(train_in_threads, Loop(SOURCES["known lengths"], **options), match)


def test_a_run_may_change_from_a_stream_to_a_list(train_in_threads):
    class Changes(Loop):
        def __call__(self):
            self.sources = [self.source, TensorDataset(torch.arange(40)), self.source]
            ctx = raysgd_local.get_context()
            model = ctx.prepare_model(nn.Linear(1, 1))
            ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=1e-9))
            for epoch in ctx.epochs(3):
                for batch in ctx.batches(self.sources[epoch], self.batch_size):
                    values = batch[0] if isinstance(batch, list | tuple) else batch
                    loss = model(values.reshape(-1, 1).float()).mean()
                    loss.backward()
                    ctx.step(loss)
                    with self.lock:
                        self.seen[epoch].update(values.reshape(-1).tolist())

    loop = Changes(SOURCES["unknown lengths"], epochs=3)
    settled(train_in_threads(loop, workers=2, schedule=FixedPeriod(3)))
    assert loop.seen[0] == loop.seen[2] == Counter(SOURCES["unknown lengths"].all())
    assert loop.seen[1] == Counter(range(40))
