"""What an averaging round costs beyond moving the bytes.

A round with no local work (pack, finiteness, all-reduce, checks, commit, checksum) of a ResNet-18 is set against a
bare flat gloo all-reduce of the same bytes, and against torch's `PeriodicModelAverager`, between the same processes,
one thread each, interleaved; the slowest rank counts. Medians of several repeats.

    python benchmarks/round_overhead.py --workers 2 4
    python benchmarks/round_overhead.py --workers 2 4 --link-mbit 1000     # as root: hosts are network namespaces

Within one machine the round goes through shared memory; `round_tcp` is the same without. Over the link (between
network namespaces, each way held to that rate by `tc tbf`) there is no shared memory.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

from lib.arguments import docstring_parser
from lib.hosts import hosts

if TYPE_CHECKING:
    from torch import nn
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

LIMITS = {("round", 2): 1.3, ("round", 4): 1.6}
LINK_LIMIT = 1.05
AVERAGER_LIMIT = 0.8
PHASES = ("reduce", "check", "commit")


def main() -> None:
    options = parse()
    if options.rank is not None:
        print(json.dumps(measure(options)))
        return
    results = [run_workers(count, options) for count in options.workers]
    print(json.dumps(results, indent=2) if options.json else "\n".join(map(describe, results)))
    sys.exit(0 if all(result["within_limits"] for result in results) else 1)


def parse() -> argparse.Namespace:
    parser = docstring_parser(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--link-mbit", type=int, help="put each worker behind a link of this rate (root only)")
    for internal in ("--rank", "--world-size", "--port"):
        parser.add_argument(internal, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--addresses", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


# One process


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each repeat of each contender on this rank, `round.reduce` and the like included."""
    import torch
    import torch.distributed as dist
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    torch.set_num_threads(1)
    rank, world_size, address = options.rank, options.world_size, options.addresses[options.rank]
    store = TCPStore(
        options.addresses[0],
        options.port,
        is_master=rank == 0,
        wait_for_workers=False,
        timeout=timedelta(seconds=60),
    )
    # The global group, for the bare all-reduce and the averager, binds to this host's address like ours does.
    os.environ["GLOO_SOCKET_IFNAME"] = interface_of(address)
    dist.init_process_group("gloo", store=PrefixStore("global", store), rank=rank, world_size=world_size)
    contenders = build(options, store, address)
    times: dict[str, list[float]] = {}
    for repeat in range(options.repeats + 2):
        for name in rotated(list(contenders), repeat):
            dist.barrier()
            started = time.perf_counter()
            phases = contenders[name]()
            took = {name: time.perf_counter() - started} | {f"{name}.{phase}": s for phase, s in phases.items()}
            for key, seconds in took.items():
                times.setdefault(key, []).extend([seconds] if repeat >= 2 else [])
    dist.barrier()
    return times


def build(options: argparse.Namespace, store: TCPStore, address: str) -> dict[str, Callable[[], dict[str, float]]]:
    import torch
    import torch.distributed as dist
    from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
    from torchvision.models import resnet18

    model = resnet18(num_classes=10)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)  # the averager skips parameters without
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "When period is 1")
        averager = PeriodicModelAverager(period=1, warmup_steps=0)
    rounds = {"round": ours(model, options, store, address, True)}
    if options.link_mbit is None:
        rounds["round_tcp"] = ours(model, options, store, address, False)
    flat = torch.zeros(rounds["round"].numel)

    def bare() -> dict[str, float]:
        dist.all_reduce(flat)
        return {}

    def torch_averager() -> dict[str, float]:
        averager.average_parameters(model.parameters())
        return {}

    return {"bare": bare, "averager": torch_averager, **rounds}


class ours:  # noqa: N801
    """The engine's own round: the code path of a worker."""

    def __init__(
        self, model: nn.Module, options: argparse.Namespace, store: TCPStore, address: str, shared_memory: bool
    ) -> None:
        from raysgd_local.algorithms.algorithm import Algorithm
        from raysgd_local.algorithms.schedules import FixedPeriod
        from raysgd_local.control.control_slots import SLOT
        from raysgd_local.state.replica_state import ReplicaState
        from raysgd_local.training.exchange.plain import Installing, Reduction
        from raysgd_local.transport.process_group import ProcessGroupNetwork

        network = ProcessGroupNetwork(store, address, f"bench/{shared_memory}", shared_memory=shared_memory)
        algorithm = Algorithm(schedule=FixedPeriod(1))
        self.reduction = Reduction(ReplicaState(model), network.allocate, options.world_size, algorithm)
        self.how = Installing("parameters", "parameters", lambda _: None)
        self.round = 0
        self.reduction.seat(options.world_size)
        self.numel = self.reduction.state.numel + SLOT * options.world_size
        self.transport = network.connect(1, options.rank, options.world_size)

    def __call__(self) -> dict[str, float]:
        from raysgd_local.control.control_slots import Contribution

        marks = [time.perf_counter()]
        self.round += 1
        control = self.reduction.reduce(self.transport, "parameters", self.round, Contribution(weight=32.0))
        marks.append(time.perf_counter())
        assert self.reduction.finite()
        marks.append(time.perf_counter())
        assert control.agreed
        self.reduction.commit(self.how, control)
        marks.append(time.perf_counter())
        return {phase: b - a for phase, a, b in zip(PHASES, marks, marks[1:], strict=False)}


def rotated(names: list[str], by: int) -> list[str]:
    start = by % len(names)
    return names[start:] + names[:start]


def interface_of(address: str) -> str:
    listed = subprocess.run(["ip", "-o", "addr", "show"], capture_output=True, text=True, check=True).stdout
    return next(line.split()[1] for line in listed.splitlines() if f" {address}/" in line)


# All processes


def run_workers(count: int, options: argparse.Namespace) -> dict[str, object]:
    prefixes: list[list[str]] = [[]] * count
    with ExitStack() as stack:
        if options.link_mbit is None:
            addresses = ["127.0.0.1"] * count
        else:
            found = stack.enter_context(hosts(count, options.link_mbit))
            addresses, prefixes = [host.address for host in found], [host.prefix for host in found]
        port = free_port() if options.link_mbit is None else 29400
        common = ["--world-size", str(count), "--port", str(port), "--repeats", str(options.repeats)]
        common += ["--addresses", *addresses]
        common += [] if options.link_mbit is None else ["--link-mbit", str(options.link_mbit)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        workers = [
            subprocess.Popen(
                [*prefix, sys.executable, __file__, "--rank", str(rank), *common],
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
            )
            for rank, prefix in enumerate(prefixes)
        ]
        outputs = [worker.communicate(timeout=600)[0] for worker in workers]
    return summarise(count, options.link_mbit, [json.loads(output) for output in outputs])


def summarise(count: int, link_mbit: int | None, ranks: list[dict[str, list[float]]]) -> dict[str, object]:
    slowest = {name: [max(times) for times in zip(*(r[name] for r in ranks), strict=True)] for name in ranks[0]}
    medians_ms = {name: round(1000 * statistics.median(times), 2) for name, times in slowest.items()}
    bare, averager = medians_ms["bare"], medians_ms["averager"]
    limit = LIMITS.get(("round", count)) if link_mbit is None else LINK_LIMIT
    ratios = {name: round(ms / bare, 3) for name, ms in medians_ms.items() if "." not in name}
    against_averager = round(medians_ms["round"] / averager, 3)
    # Over a link all move the same bytes at its rate: there the bare exchange's own ratio is the least possible.
    averager_limit = AVERAGER_LIMIT if link_mbit is None else None
    within = (limit is None or ratios["round"] <= limit) and against_averager <= (averager_limit or math.inf)
    return {
        "workers": count,
        "link_mbit": link_mbit,
        "repeats": len(slowest["bare"]),
        "medians_ms": medians_ms,
        "minima_ms": {name: round(1000 * min(times), 2) for name, times in slowest.items()},
        "ratio_to_bare": ratios,
        "limit": limit,
        "ratio_to_averager": against_averager,
        "bare_to_averager": round(bare / averager, 3),
        "averager_limit": averager_limit,
        "within_limits": within,
    }


def describe(result: dict[str, object]) -> str:
    link = f", {result['link_mbit']} Mbit/s links" if result["link_mbit"] else ""
    lines = [f"{result['workers']} workers{link}, medians of {result['repeats']}"]
    medians, minima, ratios = result["medians_ms"], result["minima_ms"], result["ratio_to_bare"]
    assert isinstance(minima, dict)
    assert isinstance(medians, dict)
    assert isinstance(ratios, dict)
    for name, ratio in ratios.items():
        phases = [f"{phase} {medians[f'{name}.{phase}']}" for phase in PHASES if f"{name}.{phase}" in medians]
        spread = f"{medians[name]:8.1f} ms (least {minima[name]:.1f})"
        lines.append(f"  {name:10} {spread}  {ratio:5.2f} x bare  {', '.join(phases)}")
    lines.append(
        f"  round: limit {result['limit']} x bare; {result['ratio_to_averager']} x averager "
        f"(limit {result['averager_limit']}; bare is {result['bare_to_averager']} x averager)"
    )
    return "\n".join([*lines, f"  {'within' if result['within_limits'] else 'NOT WITHIN'} limits"])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    main()
