"""Runs whose directory is in an object store: a real server that speaks S3."""

from __future__ import annotations

import csv
import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from object_store import object_store
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local.cli import app
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.run_files.checkpoint_survey import finished, survey
from raysgd_local.run_files.storage import Storage
from raysgd_local.runtime import controller_shell

EVERY_EPOCH = CheckpointPolicy(every_epochs=1, keep=2)
EPOCHS, AWAY_FROM, AWAY_UNTIL = 8, 2, 5
AWAY_S = 30
TWO_WORKERS = (
    "workers.min=2",
    "workers.max=2",
    "task.epochs=100000",
    "checkpoints.every_epochs=null",
    "checkpoints.every_s=2",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with object_store(tmp_path_factory.mktemp("store") / "log") as store:
        yield store


def training(at_epoch, epochs=EPOCHS):
    """A loop that calls `at_epoch` on one worker as each epoch begins."""
    data = TensorDataset(torch.randn(60, 5), torch.randn(60, 2))

    def loop():
        ctx = raysgd_local.get_context()
        model = ctx.prepare_model(torch.nn.Linear(5, 2))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
        for epoch in ctx.epochs(epochs):
            if ctx.rank == 0:
                at_epoch(epoch)
            for x, y in ctx.batches(data, batch_size=5):
                loss = F.mse_loss(model(x), y)
                loss.backward()
                ctx.step(loss)

    return loop


def test_a_directory_in_an_object_store_holds_what_one_on_a_disk_does(store):
    storage = Storage.at(store.place("kinds"))
    assert (storage.names(), storage.exists("a/b"), storage.local) == ([], False, None)
    storage.write("a/b", b"one")
    storage.write("a/b", b"two")
    storage.write("c", b"")
    assert (storage.read("a/b"), storage.names(), storage.under("a").names()) == (b"two", ["a", "c"], ["b"])
    storage.delete("a")
    storage.delete("a")
    assert storage.names() == ["c"]


def test_training_goes_on_while_the_store_is_away_and_the_next_checkpoint_lands(
    store, train_in_threads, monkeypatch
):
    monkeypatch.setattr(controller_shell, "_COPY_OUT_EVERY_S", 0.02)
    seen_s = {}

    def at_epoch(epoch):
        seen_s[epoch] = time.monotonic()
        if epoch == AWAY_FROM:
            store.go_away()
        if epoch == AWAY_UNTIL:
            store.come_back()

    storage = Storage.at(store.place("away"))
    done = train_in_threads(training(at_epoch), policy=EVERY_EPOCH, storage=storage)
    assert done.result["status"] == "finished"
    assert seen_s[AWAY_UNTIL] - seen_s[AWAY_FROM] < 8  # a request that nobody answers takes longer
    events = [json.loads(line) for line in storage.read("events.jsonl").decode().splitlines()]
    *_, last = [event for event in events if event["event"] == "checkpoint_written"]
    found = survey(storage)
    assert (found.manifest["name"], last["round"], len(found.damaged)) == (
        last["checkpoint"],
        done.result["rounds"],
        0,
    )
    rows = list(csv.DictReader(storage.read("rounds.csv").decode().splitlines()))
    assert [int(row["round"]) for row in rows] == list(range(1, done.result["rounds"] + 1))
    assert json.loads(storage.read("result.json")) == done.result
    assert storage.exists("model.pt")


def words_of(storage, cluster, *settings):
    place = ["--storage", storage, "--name", "run", "--address", cluster, "--resume", "auto"]
    return ["train", *place, *(word for setting in (*TWO_WORKERS, *settings) for word in ("--set", setting))]


def largest_gap_s(rows):
    """Between one round's end and the next one's, in training time."""
    ends_s = [float(row["elapsed_s"]) for row in rows]
    return max(end - begin for begin, end in pairwise(ends_s))


def wait_until(holds, limit_s, what):
    deadline_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline_s, f"{what}: not within {limit_s:g} s"
        time.sleep(0.1)


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.study
def test_a_real_run_bears_half_a_minute_without_its_store_and_goes_on_from_there_later(store, cluster):
    run = Storage.at(store.place("runs/run"))
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(app.run, words_of(store.place("runs"), cluster, f"stop.seconds={AWAY_S + 10}"))
        wait_until(lambda: running.done() or finished(run), 90, "a checkpoint")
        store.go_away()
        away_from_s = time.time()
        time.sleep(AWAY_S)
        store.come_back()
        back_s = time.time()
        assert not running.done()
        assert running.result(120) == 0
    rows = list(csv.DictReader(run.read("rounds.csv").decode().splitlines()))
    events = [json.loads(line) for line in run.read("events.jsonl").decode().splitlines()]
    written_s = [event["time_s"] for event in events if event["event"] == "checkpoint_written"]
    landed_s = min(time_s for time_s in written_s if time_s > back_s) - back_s
    print(f"largest gap between rounds {largest_gap_s(rows):.2f} s; next checkpoint after {landed_s:.1f} s")
    assert largest_gap_s(rows) < 3  # a request that nobody answers takes longer
    assert [event for event in events if event["event"] == "checkpoint_failed" and event["time_s"] > away_from_s]
    assert not [time_s for time_s in written_s if away_from_s + 1 < time_s < back_s]
    assert landed_s < 15
    result = json.loads(run.read("result.json"))
    assert (result["status"], result["samples_lost"], result["samples_repeated"]) == ("finished", 0, 0)

    again = words_of(store.place("runs"), cluster, f"stop.seconds={AWAY_S + 12}")
    assert app.run(again) == 0
    events = [json.loads(line)["event"] for line in run.read("events.jsonl").decode().splitlines()]
    assert events.count("resumed") == 1
    assert json.loads(run.read("result.json"))["samples"] > result["samples"]
