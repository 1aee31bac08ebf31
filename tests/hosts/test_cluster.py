"""A cluster of three machines as docs/cluster.md brings it up: runs on it, and what happens when machines go."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from machines import SHARED, wait_for
from page import the_command

pytestmark = pytest.mark.hosts

START_S = 120.0  # Ray, torch and three workers on the cores that there are, which are few

ENDURING = (
    "--set workers.min=1 --set workers.max=3 --set workers.start_timeout_s=60 --set task.epochs=100000 "
    "--set algorithm.placement.kind=redundant --set algorithm.placement.copies=2"
)

BLOCKS = (
    "--set workers.min=4 --set workers.max=4 --set task.epochs=4 --set algorithm.schedule.kind=hierarchical "
    "--set algorithm.averaging.kind=blocks "
    "--set algorithm.placement.kind=redundant --set algorithm.placement.copies=2"
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
    tries = (
        (lab.laptop, f"{wrong} {submit}"),
        (lab.laptop, f"{none} {submit}"),
        (lab.nodes[1], f"{wrong} {train}"),
    )
    with ThreadPoolExecutor() as at_once:
        done = list(at_once.map(lambda one: one[0].run(one[1]), tries))
    for one, told in zip(done, ("token", "token", "address"), strict=True):
        assert one.returncode == 2, one.stdout + one.stderr
        assert one.stderr.splitlines()[-1].startswith(f"error: {told}")
    assert not (lab.shared / "runs" / "thief").exists()


@pytest.mark.long
def test_blocks_are_machines_and_the_copies_of_a_chunk_lie_on_distinct_ones(lab):
    with lab.submitted("blocks", BLOCKS, on_each=2) as run:
        assert run.ended(START_S + 60) == 0, run.log.read_text()
    assert {row["scope"] for row in run.rounds()} == {"block", "global"}
    manifest = json.loads(max((run.directory / "checkpoints").glob("*/manifest.json")).read_text())
    nodes = {event["worker"]: event["node"] for event in run.events("worker_joined")}
    blocks = dict(zip(manifest["members"], manifest["replicated"]["blocks"], strict=True))
    assert all((blocks[a] == blocks[b]) == (nodes[a] == nodes[b]) for a in blocks for b in blocks)
    assert 1 < len(set(nodes.values())) < len(nodes) == 4
    assert all(len({nodes[worker] for worker in chunk}) == 2 for chunk in manifest["placement"]["holders"])


@pytest.fixture(scope="module")
def run(lab):
    """A run with a worker on each machine, to which the tests below do something, one after another."""
    with lab.submitted("hosts", ENDURING) as run:
        run.wait_for_workers(3, START_S)
        yield run


@pytest.mark.long
def test_a_run_goes_on_without_a_machine_that_is_cut_off_and_takes_it_in_when_it_is_back(lab, run):
    seen = len(run.rounds())
    lab.nodes[2].host.unplug()
    cut_s = time.monotonic()
    run.wait_for_workers(2, 10, after=seen)
    time.sleep(max(0.0, 20 - (time.monotonic() - cut_s)))
    views, lost = len(run.events("view_formed")), len(run.events("worker_lost"))
    lab.nodes[2].host.plug_in()
    run.wait_for_workers(3, 120, after=len(run.rounds()))
    # The joiner's view, and no other: what came back disturbed nobody.
    assert (len(run.events("view_formed")), len(run.events("worker_lost"))) == (views + 1, lost)
    assert lost == 1


def test_a_run_goes_on_without_a_machine_that_loses_power(lab, run):
    seen = len(run.rounds())
    lab.nodes[1].switch_off()
    run.wait_for_workers(2, 10, after=seen)
    lab.nodes[1].switch_on()


@pytest.mark.long
def test_a_job_whose_process_is_killed_goes_on_when_it_is_run_again(lab, run):
    assert list((run.directory / "checkpoints").glob("*/manifest.json"))
    assert lab.nodes[0].run("pkill -KILL -f '[r]aysgd-local train'").returncode == 0
    assert run.ended() == 128 + signal.SIGKILL
    with lab.submitted("hosts", ENDURING) as again:
        wait_for(lambda: again.events("resumed") or again.command.poll() is not None, START_S, "the resume")
        seen = len(again.rounds())  # with two workers or three: a machine that was off may be back
        wait_for(lambda: len(again.rounds()) > seen, START_S, "a round after the resume")
        lab.run(f"ray job stop {again.number()} --address http://127.0.0.1:8265")
        assert again.ended() == 130
    result, (resumed,) = again.result(), again.events("resumed")
    assert result["status"] == "interrupted"
    assert result["rounds"] > resumed["round"] > 0
    assert result["samples_lost"] == result["samples_repeated"] == result["chunks_uncovered_max"] == 0
    assert [int(row["round"]) for row in again.rounds()] == list(range(1, result["rounds"] + 1))
