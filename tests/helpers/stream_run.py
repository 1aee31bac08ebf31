"""A run over a stream on real worker processes that are killed, told to go, and resumed; and what it trained on.

As a script (`python stream_run.py FOLDER FORMAT ATTEMPT ADDRESS`) it is one attempt of the run.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import torch
from ray.train import RunConfig, ScalingConfig
from torch import nn

import raysgd_local
from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer
from raysgd_local.config import Checkpoints, Data

SHARDS, EPOCHS, WORKERS = 64, 2, 4
LENGTH = 7  # tokens of a packed sample
FORMATS = ("jsonl", "parquet", "tar", "huggingface", "ray", "packed")


def rows_of(shard: int) -> list[int]:
    """The ids in a shard: there are 8 to 57."""
    return [1000 * shard + row for row in range(8 + (shard * 37) % 50)]


IDS = {number for shard in range(SHARDS) for number in rows_of(shard)}


def tokens_of(number: int) -> list[int]:
    """A row's tokens: one to nine times its id."""
    return [number] * (1 + number % 9)


def write(folder: Path, kind: str) -> None:
    """Write the shards."""
    (folder / "data").mkdir()
    for shard in range(SHARDS):
        _write(folder / "data" / f"{shard:03}", rows_of(shard), kind)


def _write(path: Path, ids: list[int], kind: str) -> None:
    if kind == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"id": ids}), path.with_suffix(".parquet"), row_group_size=10)
    elif kind == "tar":
        with tarfile.open(path.with_suffix(".tar"), "w") as tar:
            for number in ids:
                content = str(number).encode()
                info = tarfile.TarInfo(f"{number:06}.id")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    else:
        lines = (json.dumps({"id": number}) for number in ids)
        path.with_suffix(".jsonl").write_text("".join(f"{line}\n" for line in lines))


def _dataset(config: dict[str, Any], ctx: Any) -> Any:
    folder = Path(config["folder"]) / "data"
    if config["kind"] == "huggingface":
        import datasets

        files = sorted(map(str, folder.glob("*.jsonl")))
        return datasets.load_dataset("json", data_files=files, split="train", streaming=True)
    return ctx.get_dataset_shard("train") if config["kind"] == "ray" else str(folder)


def _id(row: Any) -> int:
    return int(row["id"])


def _tokens(row: Any) -> list[int]:
    return tokens_of(int(row["id"]))


def loop(config: dict[str, Any]) -> None:
    """Trains, and writes a line for each step: the ids, keyed by (view, round)."""
    ctx = raysgd_local.get_context()
    model = ctx.prepare_model(nn.Linear(1, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=1e-9))
    dataset = _dataset(config, ctx)
    transform = [_tokens, raysgd_local.sources.Pack(LENGTH)] if config["kind"] == "packed" else _id
    shell = ctx._shell
    path = Path(config["folder"]) / f"steps-{config['attempt']}-{shell.place.worker}-{os.getpid()}.jsonl"
    with path.open("a", buffering=1) as file:
        for epoch in ctx.epochs(EPOCHS):
            for batch in ctx.batches(dataset, batch_size=6, transform=transform):
                loss = model(batch.reshape(-1, 1).float()).mean()
                loss.backward()
                time.sleep(0.01)
                said = {
                    "worker": shell.place.worker,
                    "attempt": config["attempt"],
                    "view": shell.order.view.number,
                    "round": shell.state.round + 1,
                    "epoch": epoch,
                    "ids": batch.reshape(-1).tolist(),
                }
                file.write(json.dumps(said) + "\n")
                ctx.step(loss)


def attempt(folder: str, kind: str, number: int, address: str) -> None:
    """Train, or go on."""
    datasets = None
    if kind == "ray":
        import ray

        ray.init(address, log_to_driver=False, logging_level="ERROR")
        datasets = {"train": ray.data.read_json(f"{folder}/data", override_num_blocks=16)}
    trainer = LocalSGDTrainer(
        train_loop_per_worker=loop,
        train_loop_config={"folder": folder, "kind": kind, "attempt": number},
        algorithm=Algorithm(FixedPeriod(4)),
        scaling_config=ScalingConfig(num_workers=(1, WORKERS), resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="run", storage_path=folder),
        checkpoints=Checkpoints(every_s=1.0),
        data=Data(interleave=3, shuffle_window=10),
        datasets=datasets,
        seed=5,
    )
    trainer.fit(resume="auto" if number else None, address=address, observe=lambda _: None)


class StreamRun:
    """The run, seen through its files, and its faults."""

    def __init__(self, folder: Path, kind: str, address: str, seed: int) -> None:
        self.folder, self.kind, self.address = folder, kind, address
        self.draw = random.Random(seed)
        self.attempts = 0
        write(folder, kind)

    def run(self) -> None:
        """A SIGKILL, a SIGTERM and the joins of those who replace them, an interrupt and a resume; to the end."""
        process = self._begin()
        last = 0
        for number in self.draw.sample((signal.SIGKILL, signal.SIGTERM), 2):
            last += self.draw.randint(2, 14)
            self._strike(process, last, number)
        last += self.draw.randint(2, 14)
        self._wait(process, last)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (-signal.SIGINT, 1, 130), self._said()
        assert self._begin().wait(180) == 0, self._said()

    def _begin(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, __file__, str(self.folder), self.kind, str(self.attempts), self.address]
        self.attempts += 1
        with (self.folder / "said.txt").open("ab") as said:
            return subprocess.Popen(command, stdout=said, stderr=said)

    def _said(self) -> str:
        return (self.folder / "said.txt").read_text()[-3000:]

    def _wait(self, process: subprocess.Popen[bytes], round: int) -> None:
        deadline = time.monotonic() + 120
        while self._rounds() < round:
            assert process.poll() is None, f"ended before round {round}: {self._said()}"
            assert time.monotonic() < deadline, f"no round {round}"
            time.sleep(0.01)

    def _strike(self, process: subprocess.Popen[bytes], round: int, number: signal.Signals) -> None:
        """Hit a worker at a random moment after `round`."""
        self._wait(process, round)
        time.sleep(self.draw.random() * 0.1)
        gone = {e["worker"] for e in self.events() if e["event"] in ("worker_lost", "worker_left", "drain_notice")}
        joined = {e["worker"]: e["pid"] for e in self.events() if e["event"] == "worker_joined"}
        alive = [pid for worker, pid in joined.items() if worker not in gone and psutil.pid_exists(pid)]
        os.kill(self.draw.choice(alive), number)

    def _rounds(self) -> int:
        path = self.folder / "run" / "rounds.csv"
        return path.read_text().count("\n") - 1 if path.exists() else 0

    def events(self) -> list[dict[str, Any]]:
        path = self.folder / "run" / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def result(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "run" / "result.json").read_text()))

    # What was trained on, from the outside.

    def trained(self) -> dict[int, Counter[int]]:
        """By epoch, how often each id was in a step that the model has."""
        resumed = [event["round"] for event in self.events() if event["event"] == "resumed"]
        with (self.folder / "run" / "rounds.csv").open() as file:
            views = {int(row["round"]): int(row["view"]) for row in csv.DictReader(file)}
        gone = self._gone()
        counts: dict[int, Counter[int]] = {epoch: Counter() for epoch in range(EPOCHS)}
        for path in self.folder.glob("steps-*.jsonl"):
            for said in map(json.loads, path.read_text().splitlines()):
                round, attempt = said["round"], said["attempt"]
                of = sum(round > at for at in resumed)  # the attempt whose round this is
                view = views.get(round, 0)
                left = gone.get((attempt, said["worker"]), 1 << 60)  # no member of this view and later ones
                if of == attempt and (view == said["view"] or said["view"] < view < left):
                    counts[said["epoch"]].update(said["ids"])
        return counts

    def _gone(self) -> dict[tuple[int, str], int]:
        """By attempt and worker, the first view without it."""
        found: dict[tuple[int, str], int] = {}
        attempt, view = 0, 0
        for event in self.events():
            if event["event"] == "resumed":
                attempt, view = attempt + 1, 0
            elif event["event"] == "view_formed":
                view = event["view"]
            elif event["event"] in ("worker_lost", "worker_left"):
                found[attempt, event["worker"]] = view + 1
        return found


if __name__ == "__main__":
    attempt(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
