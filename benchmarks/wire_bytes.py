"""What compression saves on the wire, and what it costs in accuracy.

    python benchmarks/wire_bytes.py [--workers 2 4] [--model mlp] [--epochs 6] [--seeds 3] [--json FILE]

Processes on this machine that exchange over TCP, shared memory switched off, train on Fashion-MNIST, an averaging every
8 steps: dense, and with each compression. Bytes are those that the kernel says it sent on the view's sockets,
all control parts included; the last averaging sends what compression had left out. Accuracy is the averaged model's.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from lib.arguments import docstring_parser
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.nn import functional as F

from raysgd_local import Algorithm, FixedPeriod, Half, Int8, Sign, TopK
from raysgd_local.control.control_slots import Contribution, Flags
from raysgd_local.state.replica_state import ReplicaState
from raysgd_local.tasks import FashionMNIST
from raysgd_local.training.exchange.factory import make_reduction
from raysgd_local.training.exchange.plain import Installing
from raysgd_local.transport.process_group import ProcessGroupNetwork

TAU, BATCH, RATE = 8, 32, 0.03
COMPRESSIONS = {"dense": None, "half": Half(), "int8": Int8(), "top-k 1 %": TopK(0.01), "sign": Sign()}
LIMITS = {
    2: {"half": 0.52, "int8": 0.28, "top-k 1 %": 0.03, "sign": 0.05},
    4: {"half": 0.52, "int8": 0.30, "top-k 1 %": 0.05, "sign": 0.07},
}


def work(rank: int, workers: int, port: int, what: Any, name: str, epochs: int, seed: int, results: Any) -> None:
    """One process: trains on its share of the samples, and tells what it sent and, as rank 0, the accuracy."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    store = TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False)
    network = ProcessGroupNetwork(store, "127.0.0.1", "wire", shared_memory=False)
    train, test = FashionMNIST().datasets()
    model = FashionMNIST(model=what).make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    algorithm = Algorithm(FixedPeriod(TAU), compression=COMPRESSIONS[name])
    reduction = make_reduction(ReplicaState(model, [optimizer]), network.allocate, workers, algorithm)
    transport = network.connect(1, rank, workers)
    reduction.seat(workers)
    steps, rounds = len(train) // (BATCH * workers), 0
    before = transport.wire_bytes()
    for epoch in range(epochs):
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1000 * seed + epoch))
        for step, batch in enumerate(torch.split(order[rank::workers][: steps * BATCH], BATCH), start=1):
            images, labels = train.__getitems__(batch.tolist()).columns
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            if step % TAU == 0 or step == steps:
                rounds += 1
                last = Flags.STOP if epoch == epochs - 1 and step == steps else Flags.NONE
                average(reduction, transport, rounds, last)
    sent = transport.wire_bytes() - before
    results.put((rank, sent, rounds, accuracy(model, test) if rank == 0 else None))
    transport.all_reduce(torch.zeros(1))  # nobody leaves before all are done
    transport.close()


def average(reduction: Any, transport: Any, round: int, flags: Flags) -> None:
    samples = TAU * BATCH
    said = Contribution(weight=float(samples), samples=samples, flags=flags)
    control = reduction.reduce(transport, "parameters", round, said)
    reduction.commit(Installing("parameters", "parameters", lambda _: None), control)


@torch.no_grad()
def accuracy(model: torch.nn.Module, test: Any) -> float:
    images, labels = test.tensors
    right = sum(
        int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(1000), labels.split(1000), strict=True)
    )
    return right / len(labels)


def run(workers: int, model: Any, name: str, epochs: int, seed: int) -> tuple[float, float]:
    """Bytes a worker and round, and the accuracy."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=work, args=(rank, workers, store.port, model, name, epochs, seed, results))
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join(60)
    sent = statistics.mean(bytes_sent / rounds for _, bytes_sent, rounds, _ in found)
    return sent, next(right for _, _, _, right in found if right is not None)


def main() -> int:
    parser = docstring_parser(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--model", choices=("lenet", "mlp"), default="mlp", help="62 or 159 thousand parameters")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, wrong = [], []
    print("| workers | compression | bytes a round | of dense | limit | accuracy |\n|---|---|---|---|---|---|")
    for workers in options.workers:
        dense = 0.0
        for name in COMPRESSIONS:
            runs = [run(workers, options.model, name, options.epochs, seed) for seed in range(options.seeds)]
            sent, right = statistics.mean(r[0] for r in runs), [r[1] for r in runs]
            dense = dense or sent
            limit = LIMITS.get(workers, {}).get(name)
            spread = statistics.stdev(right) if len(right) > 1 else 0.0
            told = f"{statistics.mean(right):.3f} ± {spread:.3f}"
            ratio = sent / dense
            print(f"| {workers} | {name} | {sent:.0f} | {ratio:.3f} | {limit or ''} | {told} |", flush=True)
            rows.append(
                {"workers": workers, "compression": name, "bytes": sent, "ratio": ratio, "accuracy": right}
            )
            wrong += [f"{name} at {workers} workers"] if limit is not None and ratio > limit else []
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    if wrong:
        print("above the limit:", ", ".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
