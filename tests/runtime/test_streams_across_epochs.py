"""Streams with rounds across epochs on the real shells: τ is τ, evaluations change nothing, no row is lost."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from stream_loops import Loop, Numbers, settled
from torch.utils.data import TensorDataset

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.averaging import Elastic
from raysgd_local.algorithms.outer import SlowMo
from raysgd_local.algorithms.schedules import Delayed, EveryStep, FixedPeriod
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.errors import InputError
from raysgd_local.sources import Pack

ACROSS = {"across_epochs": True}
READING = {"shuffle_window": 8, "interleave": 2, "workers_min": 1}
SOURCES = {
    "unknown lengths": Numbers([30, 7, 0, 55, 12, 41]),
    "known lengths": Numbers([30, 7, 0, 55, 12, 41], known=True),
    "fewer shards than workers": Numbers([60, 50]),
    "one empty": Numbers([0, 90]),
}


def each_row_in_each_epoch(source, epochs):
    return Counter(dict.fromkeys(source.all(), epochs))


@pytest.mark.parametrize("known", [True, False], ids=["known lengths", "unknown lengths"])
def test_every_round_but_the_last_has_tau_steps_though_an_epoch_has_fewer(train_in_threads, known):
    source = Numbers([24] * 16, known)
    loop = Loop(source, epochs=9, batch_size=2)
    done = train_in_threads(loop, workers=8, schedule=FixedPeriod(64), program=ACROSS)
    settled(done)
    assert [int(row["steps"]) for row in done.rows()] == [8 * 64, 8 * 64, 8 * 64, 8 * 24]
    assert [int(row["epoch"]) for row in done.rows()] == [0, 2, 5, 8]
    assert sum(loop.seen.values(), Counter()) == each_row_in_each_epoch(source, 9)


@pytest.mark.parametrize("schedule", [FixedPeriod(3), FixedPeriod(50), EveryStep()])
@pytest.mark.parametrize("name", SOURCES)
def test_each_row_is_trained_on_once_an_epoch(train_in_threads, name, schedule):
    loop = Loop(SOURCES[name], epochs=4)
    done = train_in_threads(loop, workers=3, schedule=schedule, settings=READING, program=ACROSS)
    settled(done)
    assert sum(loop.seen.values(), Counter()) == each_row_in_each_epoch(SOURCES[name], 4)
    assert min(loop.steps.values()) > 0.5 * max(loop.steps.values())


def test_later_epochs_are_dealt_by_lengths_that_the_first_one_found_out(train_in_threads):
    source = Numbers([5, 5, 5, 105])
    loop = Loop(source, epochs=8, batch_size=5)
    settled(train_in_threads(loop, workers=2, schedule=FixedPeriod(4), program=ACROSS))
    assert sum(loop.seen.values(), Counter()) == each_row_in_each_epoch(source, 8)
    assert (
        max(loop.steps.values()) - min(loop.steps.values()) <= 22
    )  # in each epoch whole shards: 21 and 3, or 22 and 2


class Told(Loop):
    """Keeps a record of each step, by which it can be told whether the model has it. One worker dies."""

    def __init__(self, *args, killed=None, at=0, **options):
        super().__init__(*args, **options)
        self.killed, self.at, self.dead = killed, at, ""
        self.record = []

    def stepping(self, ctx, batch):
        shell = ctx._shell
        worker, place = shell.place.worker, (shell.order.view.number, shell.state.round + 1)
        with self.lock:
            if self.at and len(self.record) >= self.at and not self.dead:
                self.dead = worker
                raise self.killed
            self.record.append((worker, place, batch.reshape(-1).tolist()))

    def trained(self, done):
        """How often each value is in the model: steps of the dead worker count if its view resolved their round."""
        views = {int(row["round"]): int(row["view"]) for row in done.rows()}
        counts = Counter()
        for worker, (view, round), values in self.record:
            if worker != self.dead or views.get(round) == view:
                counts.update(values)
        return counts


@pytest.mark.parametrize("schedule", [FixedPeriod(3), FixedPeriod(25), EveryStep()])
@pytest.mark.parametrize("at", [1, 20, 37, 64, 90])
@pytest.mark.parametrize("name", SOURCES)
def test_a_death_and_a_joiner_lose_and_repeat_no_row(train_in_threads, killed, name, at, schedule):
    loop = Told(SOURCES[name], epochs=4, killed=killed, at=at)
    done = train_in_threads(loop, workers=3, schedule=schedule, settings=READING, program=ACROSS)
    settled(done)
    assert loop.dead
    assert done.result["workers_lost"] == 1
    assert loop.trained(done) == each_row_in_each_epoch(SOURCES[name], 4)


class Stops(Loop):
    def __init__(self, *args, stop_at, **options):
        super().__init__(*args, **options)
        self.stop_at = stop_at

    def stepping(self, ctx, batch):
        if ctx._shell.steps == self.stop_at:
            ctx.stop()


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("name", SOURCES)
def test_a_run_that_resumes_in_a_later_epoch_goes_on_in_the_midst_of_it(train_in_threads, tmp_path, name, workers):
    source, policy = SOURCES[name], CheckpointPolicy(every_epochs=None)
    options = {"schedule": FixedPeriod(15), "settings": READING, "policy": policy, "program": ACROSS}
    first = Stops(source, epochs=4, stop_at=28)
    done = train_in_threads(first, workers=2, **options)
    assert done.result["reason"] == "stopped by the training loop"
    trained = sum(first.seen.values(), Counter())
    plain = json.loads(next((tmp_path / "run" / "checkpoints").glob("*/manifest.json")).read_text())
    assert plain["replicated"]["epoch"] in (1, 2)
    plain["replicated"]["stopped"] = ""
    plain.pop("sha256", None)
    rest = Loop(source, epochs=5)  # one more than the run had before
    settled(train_in_threads(rest, workers=workers, resume=plain, **options))
    assert trained + sum(rest.seen.values(), Counter()) == each_row_in_each_epoch(source, 5)


class Evaluates(Loop):
    """Evaluates after each epoch."""

    data = TensorDataset(torch.arange(8.0).reshape(-1, 1))

    def __init__(self, *args, evaluates, **options):
        super().__init__(*args, **options)
        self.evaluates = evaluates

    def epoch_over(self, ctx):
        if self.evaluates:
            before = [t.clone() for t in ctx._shell.replica.models[0].parameters()]
            ctx.evaluate(lambda model, batch: model(batch[0]).mean(1), self.data)
            after = list(ctx._shell.replica.models[0].parameters())
            assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


METHODS = {
    "mean": Algorithm(FixedPeriod(7)),
    "every step": Algorithm(EveryStep()),
    "outer": Algorithm(FixedPeriod(7), outer=SlowMo(beta=0.4)),
    "elastic": Algorithm(FixedPeriod(7), averaging=Elastic(0.8)),
    "delayed": Algorithm(Delayed(FixedPeriod(7), delay=2)),
}


@pytest.mark.parametrize("known", [True, False], ids=["known lengths", "unknown lengths"])
@pytest.mark.parametrize("name", METHODS)
def test_an_evaluation_after_each_epoch_changes_nothing(train_in_threads, name, known):
    algorithm, source, found = METHODS[name], Numbers([15] * 8, known), []
    for evaluates in (True, False):
        loop = Evaluates(source, epochs=5, batch_size=3, lr=1e-8, evaluates=evaluates)
        done = train_in_threads(
            loop,
            workers=4,
            schedule=algorithm.schedule,
            spec={"algorithm": algorithm},
            program={**ACROSS, "averaging": algorithm.averaging},
            settings=READING,
            name=f"evaluates {evaluates}",
        )
        settled(done)
        assert sum(loop.seen.values(), Counter()) == each_row_in_each_epoch(source, 5)
        found.append((done.models(), [row["steps"] for row in done.rows()]))
    (models, steps), (others, other_steps) = found
    assert steps == other_steps
    for ours, theirs in zip(models, others, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("processes", [0, 1])
def test_a_packer_begins_anew_with_each_epoch_of_a_list(train_in_threads, processes):
    def long(row):
        return [row] * (1 + row % 3)

    source = SOURCES["known lengths"]
    loop = Loop(source, epochs=3, transform=[long, Pack(3)], num_workers=processes)
    done = train_in_threads(loop, workers=2, schedule=FixedPeriod(30), settings=READING, program=ACROSS)
    settled(done)
    for seen in loop.seen.values():
        lacking = {row: 1 + row % 3 - seen[row] for row in source.all()}
        assert min(lacking.values()) == 0
        assert sum(lacking.values()) <= 2 * 2  # the rests of two lists


def test_a_filter_that_leaves_nothing_of_some_lists_skips_their_epochs(train_in_threads):
    loop = Loop(
        Numbers([20, 20, 20]), epochs=3, transform=lambda row: row if row < 1000 else None
    )  # only shard 0 gives samples
    settled(train_in_threads(loop, workers=3, schedule=FixedPeriod(4), settings=READING, program=ACROSS))
    assert sum(loop.seen.values(), Counter()) == Counter(dict.fromkeys(range(20), 3))


@pytest.mark.parametrize("ranks", [(0,), (0, 1, 2)])
def test_rows_that_a_loop_leaves_early_go_to_the_others_or_are_lost(train_in_threads, ranks):
    source = SOURCES["known lengths"]
    loop = Loop(source, epochs=4, most=lambda ctx: 2 if ctx.rank in ranks else None)
    done = train_in_threads(loop, workers=3, schedule=FixedPeriod(25), settings=READING, program=ACROSS)
    assert done.result["status"] == "finished", done.outcome.finish
    total = sum(loop.seen.values(), Counter())
    assert done.result["samples_repeated"] == 0
    assert done.result["samples_lost"] == 4 * len(source.all()) - total.total()
    assert max(total.values()) <= 4
    assert (done.result["samples_lost"] == 0) == (len(ranks) == 1)


def test_another_source_in_a_later_epoch_is_refused(train_in_threads):
    class Changes(Loop):
        def epoch_over(self, ctx):
            self.source = Numbers([10, 10, 10])

    done = train_in_threads(
        Changes(SOURCES["known lengths"], epochs=2), workers=1, schedule=FixedPeriod(50), program=ACROSS
    )
    assert isinstance(done.outcome.refused, InputError)
    assert "the same on all workers" in str(done.outcome.refused)
    assert done.outcome.refused.exit_status == 2
