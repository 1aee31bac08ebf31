"""Samples a second against torch's DDP and against no communication at all: same model, same processes.

    python benchmarks/throughput.py [--model strided | example] [--only every-step | tau] [--pairs 7] [--batches 300]
                                    [--batch-size 64] [--workers 2] [--json FILE]

In every worker process the ways take turns, `--pairs` times. At every step the rival is
`DistributedDataParallel(broadcast_buffers=False)`, which exchanges what we do; at τ = 16 it is a plain loop that
exchanges nothing. Beside that runs `bare`, the least that local SGD can be: the plain loop with one flat gloo
all-reduce of the parameters every 16 steps, and no checks, no control, no failures. All draw batches of the same data
set through torch's DataLoader, with the same optimizer, sum the loss, in the same processes. All begin together, and
the slowest worker's time counts, opening our epoch included. Reported are the medians of samples a second, and of the
ratios pair by pair. No checkpoints are written meanwhile: the others write none.

`strided` has a million parameters and little to compute for as much to send; `example` is the network of PyTorch's own
MNIST example, 1.2 million parameters, whose steps take about three times as long. Batches are that example's, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, RandomSampler

from raysgd_local import Algorithm, EveryStep, FixedPeriod, LocalSGDTrainer
from raysgd_local.config import Checkpoints, Config, Workers
from raysgd_local.tasks import Task
from raysgd_local.tasks.memory import InMemory
from raysgd_local.training.context import TrainContext

TAU = 16
LIMIT = 0.95  # of the rival's samples a second


def example() -> nn.Module:
    """The network of PyTorch's MNIST example, 1.2 million parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip


def strided() -> nn.Module:
    """About a million parameters, and small images after each convolution."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, stride=2), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 320), nn.ReLU(), nn.Linear(320, 10),
    )  # fmt: skip


MODELS = {"strided": strided, "example": example}  # of 28 × 28 grey images


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def plain_pass(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: InMemory,
    batch_size: int,
    average: Callable[[], None] | None = None,
) -> float:
    """Seconds of a plain loop over a worker's share of `data`, which averages every `TAU` steps or never."""
    dist.barrier()
    began_s, loss_sum = time.perf_counter(), 0.0
    sampler = RandomSampler(data, num_samples=len(data) // dist.get_world_size())
    loader = DataLoader(data, batch_size=batch_size, sampler=sampler, collate_fn=data.collate)
    for number, (x, y) in enumerate(loader, start=1):
        loss = F.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        loss_sum += loss.item()
        if average is not None and number % TAU == 0:
            average()
    return time.perf_counter() - began_s


class FlatAverage:
    """The mean of all workers' parameters, by one flat all-reduce."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters: list[torch.Tensor] = list(model.parameters())
        self._flat = torch.zeros(sum(p.numel() for p in self._parameters))
        pieces = torch.split(self._flat, [p.numel() for p in self._parameters])
        self._views = [piece.view_as(p) for piece, p in zip(pieces, self._parameters, strict=True)]

    @torch.no_grad()
    def __call__(self) -> None:
        torch._foreach_copy_(self._views, self._parameters)
        dist.all_reduce(self._flat)
        self._flat /= dist.get_world_size()
        torch._foreach_copy_(self._parameters, self._views)


@dataclass(frozen=True, kw_only=True)
class Turns(Task):
    """Ours and the others take turns; each worker logs its times."""

    model: str
    pairs: int
    batches: int
    workers: int
    ddp: bool
    store: str

    def train(self, ctx: TrainContext) -> None:
        data = self.data()
        make = MODELS[self.model]
        model = ctx.prepare_model(make())
        ctx.prepare_optimizer(optimizer_of(model))
        rival, bare = make(), make()
        rivals, bares = optimizer_of(rival), optimizer_of(bare)
        average = FlatAverage(bare)
        for pair in ctx.epochs(self.pairs + 1):  # the first warms up
            if pair == 0:
                store = FileStore(self.store, self.workers)
                dist.init_process_group("gloo", store=store, rank=ctx.rank, world_size=self.workers)
                rival = DistributedDataParallel(rival, broadcast_buffers=False) if self.ddp else rival
            rival_s = plain_pass(rival, rivals, data, self.batch_size)
            bare_s = 0.0 if self.ddp else plain_pass(bare, bares, data, self.batch_size, average)
            dist.barrier()
            began_s = time.perf_counter()
            for x, y in ctx.batches(data, batch_size=self.batch_size):
                loss = F.cross_entropy(model(x), y)
                loss.backward()  # type: ignore[no-untyped-call]
                ctx.step(loss)
            ours_s = time.perf_counter() - began_s
            if pair:
                ctx.log(pair=pair, ours_s=ours_s, rival_s=rival_s, bare_s=bare_s)

    def data(self) -> InMemory:
        generator = torch.Generator().manual_seed(0)
        samples = self.batches * self.batch_size * self.workers
        images = torch.randn(samples, 1, 28, 28, generator=generator)
        return InMemory(images, torch.randint(10, (samples,), generator=generator))


def measure(schedule: Any, ddp: bool, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        given = {name: getattr(arguments, name) for name in ("model", "pairs", "batches", "batch_size", "workers")}
        config = Config(
            task=Turns(**given, ddp=ddp, store=f"{folder}/store"),
            algorithm=Algorithm(schedule=schedule),
            workers=Workers(min=arguments.workers, max=arguments.workers),
            checkpoints=Checkpoints(every_epochs=None),
            storage=folder,
            name="run",
        )
        LocalSGDTrainer.from_config(config).fit()
        lines = (Path(folder) / "run" / "events.jsonl").read_text().splitlines()
    pairs = slowest([line for line in map(json.loads, lines) if line["event"] == "log"])
    samples = arguments.batches * arguments.batch_size * arguments.workers
    ratios = [pair["rival_s"] / pair["ours_s"] for pair in pairs]
    found = {
        "pairs": len(pairs),
        "ours_samples_per_s": round(samples / statistics.median(p["ours_s"] for p in pairs)),
        "rival_samples_per_s": round(samples / statistics.median(p["rival_s"] for p in pairs)),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
    if not ddp:
        found["bare_ratio_median"] = round(
            statistics.median(pair["rival_s"] / pair["bare_s"] for pair in pairs), 3
        )
    return found


def slowest(lines: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Each pair's times: those of the worker that took longest."""
    numbers = sorted({line["pair"] for line in lines})
    return [
        {
            what: max(line[what] for line in lines if line["pair"] == pair)
            for what in ("ours_s", "rival_s", "bare_s")
        }
        for pair in numbers
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--batches", type=int, default=300, help="batches a worker in each turn")
    parser.add_argument("--batch-size", type=int, default=64, help="a worker's, in each step")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", choices=MODELS, default="strided")
    parser.add_argument("--only", choices=["every-step", "tau"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {}
    if arguments.only != "tau":
        found["every step / DDP(broadcast_buffers=False)"] = measure(EveryStep(), True, arguments)
    if arguments.only != "every-step":
        found[f"tau {TAU} / no communication"] = measure(FixedPeriod(TAU), False, arguments)
    for name, result in found.items():
        print(
            f"{name}: {result} {'within' if result['ratio_median'] >= LIMIT else 'NOT WITHIN'} the limit {LIMIT}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    sys.exit(0 if all(result["ratio_median"] >= LIMIT for result in found.values()) else 1)


if __name__ == "__main__":
    main()
