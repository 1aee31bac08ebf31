"""Samples a second against torch's DDP and against no communication at all: same model, same processes.

    python benchmarks/throughput.py [--pairs 7] [--batches 300] [--workers 2] [--json FILE]

In every worker process the two ways take turns, `--pairs` times. At every step the rival is
`DistributedDataParallel(broadcast_buffers=False)`, which exchanges what we do; at τ = 16 it is a plain loop that
exchanges nothing. Both draw batches of the same data set through torch's DataLoader, with the same optimizer, in the
same processes. All begin together, and the slowest worker's time counts, opening our epoch included. Reported are the
medians of samples a second, and of the ratios pair by pair.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ray.train import RunConfig, ScalingConfig
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, RandomSampler

import raysgd_local
from raysgd_local import Algorithm, EveryStep, FixedPeriod, LocalSGDTrainer
from raysgd_local.tasks.memory import InMemory

BATCH = 32
LIMIT = 0.95  # of the rival's samples a second


def cnn() -> nn.Module:
    """About a million parameters, 28 × 28 grey images."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, stride=2), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 320), nn.ReLU(), nn.Linear(320, 10),
    )  # fmt: skip


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def rival_pass(model: nn.Module, optimizer: torch.optim.Optimizer, data: InMemory, batches: int) -> float:
    """Seconds of a plain loop over `batches` batches."""
    sampler = RandomSampler(data, num_samples=batches * BATCH)
    loader = DataLoader(data, batch_size=BATCH, sampler=sampler, collate_fn=data.collate)
    began_s = time.perf_counter()
    for x, y in loader:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - began_s


def loop(config: dict[str, Any]) -> None:
    """Ours and the rival take turns; rank 0 logs each pair."""
    ctx = raysgd_local.get_context()
    generator = torch.Generator().manual_seed(0)
    samples = config["batches"] * BATCH * config["workers"]
    images = torch.randn(samples, 1, 28, 28, generator=generator)
    data = InMemory(images, torch.randint(10, (samples,), generator=generator))
    model = ctx.prepare_model(cnn())
    ctx.prepare_optimizer(optimizer_of(model))
    rival: nn.Module = cnn()
    rivals = optimizer_of(rival)
    for pair in ctx.epochs(config["pairs"] + 1):  # the first warms up
        if pair == 0:
            store = dist.FileStore(config["store"], config["workers"])
            dist.init_process_group("gloo", store=store, rank=ctx.rank, world_size=config["workers"])
            rival = DistributedDataParallel(rival, broadcast_buffers=False) if config["ddp"] else rival
        dist.barrier()
        rival_s = rival_pass(rival, rivals, data, config["batches"])
        dist.barrier()
        began_s = time.perf_counter()
        for x, y in ctx.batches(data, batch_size=BATCH):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            ctx.step(loss)
        ours_s = time.perf_counter() - began_s
        if pair:
            ctx.log(pair=pair, ours_s=ours_s, rival_s=rival_s)


def measure(schedule: Any, ddp: bool, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "pairs": arguments.pairs,
            "batches": arguments.batches,
            "workers": arguments.workers,
            "ddp": ddp,
            "store": f"{folder}/store",
        }
        LocalSGDTrainer(
            train_loop_per_worker=loop,
            train_loop_config=config,
            algorithm=Algorithm(schedule=schedule),
            scaling_config=ScalingConfig(num_workers=arguments.workers),
            run_config=RunConfig(name="run", storage_path=folder),
        ).fit()
        lines = (Path(folder) / "run" / "events.jsonl").read_text().splitlines()
    pairs = slowest([line for line in map(json.loads, lines) if line["event"] == "log"])
    samples = arguments.batches * BATCH * arguments.workers
    ratios = [pair["rival_s"] / pair["ours_s"] for pair in pairs]
    return {
        "pairs": len(pairs),
        "ours_samples_per_s": round(samples / statistics.median(p["ours_s"] for p in pairs)),
        "rival_samples_per_s": round(samples / statistics.median(p["rival_s"] for p in pairs)),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def slowest(lines: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Each pair's times: those of the worker that took longest."""
    numbers = sorted({line["pair"] for line in lines})
    return [
        {what: max(line[what] for line in lines if line["pair"] == pair) for what in ("ours_s", "rival_s")}
        for pair in numbers
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--batches", type=int, default=300, help="batches a worker in each turn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {
        "every step / DDP(broadcast_buffers=False)": measure(EveryStep(), True, arguments),
        "tau 16 / no communication": measure(FixedPeriod(16), False, arguments),
    }
    for name, result in found.items():
        print(
            f"{name}: {result} {'within' if result['ratio_median'] >= LIMIT else 'NOT WITHIN'} the limit {LIMIT}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    sys.exit(0 if all(result["ratio_median"] >= LIMIT for result in found.values()) else 1)


if __name__ == "__main__":
    main()
