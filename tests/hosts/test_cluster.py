"""A cluster of three machines as docs/cluster.md brings it up: runs on it, and what happens when machines go."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import struct
import time
from pathlib import Path

import pytest
from machines import SHARED, wait_for
from page import the_command

pytestmark = pytest.mark.hosts

THREE = "--set workers.min=1 --set workers.max=3 --set workers.start_timeout_s=60"
LONG = (
    f"{THREE} --set task.epochs=100000 --set algorithm.placement.kind=redundant --set algorithm.placement.copies=2"
)


def images(raw: Path) -> None:
    """The data set that the page's run takes: the real one, or, where it is not there, noise in its form."""
    if "RAYSGD_DATA" in os.environ:
        shutil.copytree(Path(os.environ["RAYSGD_DATA"]) / "FashionMNIST" / "raw", raw)
        return
    raw.mkdir(parents=True)
    noise = random.Random(0)
    for part, count in (("train", 2000), ("t10k", 500)):
        head = struct.pack(">4i", 0x803, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + noise.randbytes(count * 28 * 28))
        classes = bytes(index % 10 for index in range(count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + classes)


def test_the_pages_run_trains_on_several_machines(lab):
    images(lab.shared / "data" / "FashionMNIST" / "raw")
    told = lab.run(the_command("raysgd-local submit"), 240)
    assert told.splitlines()[-1] == f"{SHARED}/runs/first"
    run = lab.shared / "runs" / "first"
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["samples_lost"], result["samples_repeated"]) == ("finished", 0, 0)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert len({event["node"] for event in events if event["event"] == "worker_joined"}) > 1


def test_without_the_token_nobody_submits_or_connects(lab):
    head = f"{lab.nodes[0].address}:6379"
    wrong, none = "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=another", "RAY_AUTH_MODE=disabled"
    submit = f"raysgd-local submit --name thief --storage {SHARED}/runs"
    train = f"raysgd-local train --set workers.min=1 --address {head} --storage {SHARED}/runs --name thief"
    for machine, line, told in (
        (lab.laptop, f"{wrong} {submit}", "error: token"),
        (lab.laptop, f"{none} {submit}", "error: token"),
        (lab.nodes[1], f"{wrong} {train}", "error: address"),
    ):
        done = machine.run(line)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stderr.splitlines()[-1].startswith(told)
    assert not (lab.shared / "runs" / "thief").exists()


def test_a_run_survives_a_machine_that_is_cut_off_and_one_that_dies_and_takes_in_one_that_returns(lab):
    with lab.submitted("hosts", LONG) as run:
        seen = run.wait_for_workers(3, 120)
        lab.nodes[2].host.unplug()
        cut_s = time.monotonic()
        seen = run.wait_for_workers(2, 10, after=seen)
        time.sleep(max(0.0, 20 - (time.monotonic() - cut_s)))
        views = len(run.events("view_formed"))
        lab.nodes[2].host.plug_in()
        seen = run.wait_for_workers(3, 120, after=len(run.rounds()))
        assert len(run.events("view_formed")) == views + 1  # the joiner's: what came back disturbed nobody
        lab.nodes[1].switch_off()
        seen = run.wait_for_workers(2, 10, after=seen)
        lab.nodes[1].switch_on()
        number = run.log.read_text().split("submitted as ")[1].split()[0]
        lab.run(f"ray job stop {number} --address http://127.0.0.1:8265")
        assert run.ended() == 130
    result = run.result()
    assert result["status"] == "interrupted"
    assert result["samples_lost"] == result["samples_repeated"] == result["chunks_uncovered_max"] == 0
    assert list((run.directory / "checkpoints").glob("*/manifest.json"))


def test_a_job_whose_process_is_killed_goes_on_when_it_is_run_again(lab):
    options = f"{THREE} --set task.epochs=30"
    with lab.submitted("killed", options) as run:
        wait_for(lambda: list((run.directory / "checkpoints").glob("*/manifest.json")), 60, "a checkpoint")
        assert lab.nodes[0].run("pkill -KILL -f '[r]aysgd-local train'").returncode == 0
        assert run.ended() == 128 + signal.SIGKILL
    with lab.submitted("killed", options) as run:
        assert run.ended() == 0, run.log.read_text()
    assert run.events("resumed")
    result = run.result()
    assert (result["status"], result["samples"]) == ("finished", 30 * 1437)
    assert result["samples_lost"] == result["samples_repeated"] == 0
