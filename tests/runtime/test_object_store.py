"""Runs whose directory is in an object store: a real server that speaks S3."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import raysgd_local
from raysgd_local import cli
from raysgd_local.control.settings import CheckpointPolicy
from raysgd_local.files.storage import Storage
from raysgd_local.runtime import driver
from raysgd_local.training import snapshots

sys.path.insert(0, str(Path(__file__).parents[1]))

from object_store import object_store

EVERY_EPOCH = CheckpointPolicy(every_epochs=1, keep=2)
EPOCHS, AWAY_FROM, AWAY_UNTIL = 8, 2, 5


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
    monkeypatch.setattr(driver, "_COPY_OUT_EVERY_S", 0.02)
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
    newest, damaged = snapshots.newest_good(storage)
    assert (newest["name"], last["round"], len(damaged)) == (last["checkpoint"], done.result["rounds"], 0)
    rows = list(csv.DictReader(storage.read("rounds.csv").decode().splitlines()))
    assert [int(row["round"]) for row in rows] == list(range(1, done.result["rounds"] + 1))
    assert json.loads(storage.read("result.json")) == done.result
    assert storage.exists("model.pt")


@pytest.mark.ray
@pytest.mark.long
def test_a_run_goes_on_from_its_checkpoint_in_the_store(store, cluster, capsys):
    words = ["train", "--storage", store.place("runs"), "--name", "run", "--address", cluster]
    words += ["--set", "workers.min=2", "--set", "workers.max=2", "--resume", "auto"]
    assert cli.run([*words, "--set", "task.epochs=2"]) == 0
    assert cli.run([*words, "--set", "task.epochs=3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "bucket/runs/run"
    run = Storage.at(store.place("runs/run"))
    result = json.loads(run.read("result.json"))
    assert (result["status"], result["samples"], result["samples_lost"]) == ("finished", 3 * 1437, 0)
    events = [json.loads(line)["event"] for line in run.read("events.jsonl").decode().splitlines()]
    assert events.count("resumed") == 1
