"""How well the simulator predicts real runs: the same configurations on shaped links and in virtual time.

    python benchmarks/simulator_fidelity.py [--cases 2:100 4:400] [--keep DIR]     # as root, with RAYSGD_DATA

Hosts are network namespaces of this machine, each way of each link held to a rate by `tc tbf`; on them runs Ray, and on
it `raysgd-local train` trains LeNet on Fashion-MNIST. A case is `WORKERS:MBIT`. Two workers compute in earnest, a core
each. More would share the cores, as as many machines don't: so their steps also wait, a random while
(`lib/accelerator.py`).

All that the model is told was measured beforehand, and nothing of it on the runs that are predicted: step times, the
cost of a round beside its link, the warm-up and the loss curve on a run of as many workers with nothing to limit their
links, averaging at every step; bandwidth and latency of a link by a plain socket.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib.arguments import docstring_parser
from lib.hosts import Host, environment, hosts, ray_on
from lib.run_directories import kept_or_temporary

LIMIT = 0.15
PORT = 29500
CORES = 2
HERE = Path(__file__).parent
EPOCH_SAMPLES = 60_000
CALIBRATION = "kind=fixed tau=1"
SCHEDULES = ("kind=every-step", "kind=fixed tau=4", "kind=fixed tau=16", "kind=adacomm tau0=16 interval_s=2")


@dataclass(frozen=True)
class Case:
    """So many workers on links of so many Mbit/s."""

    workers: int
    mbit: float

    @staticmethod
    def of(words: str) -> Case:
        workers, _, mbit = words.partition(":")
        return Case(int(workers), float(mbit))

    @property
    def settings(self) -> list[str]:
        own = "fashion-mnist" if self.workers <= CORES else "lib.accelerator:OnAccelerator"
        steps = 1200 if self.workers <= CORES else 600  # a worker's: more than an epoch
        return [
            f"task.name={own}",
            "task.batch_size=32",
            f"stop.steps={steps * self.workers}",
            f"workers.min={self.workers}",
            f"workers.max={self.workers}",
            "checkpoints.every_epochs=null",
        ]


@dataclass(frozen=True)
class Compared:
    """Real and predicted training time of one configuration, in seconds, with the rounds that they took."""

    workers: int
    mbit: float
    schedule: str
    real_s: float
    predicted_s: float
    real_rounds: int
    predicted_rounds: int

    @property
    def error(self) -> float:
        return self.predicted_s / self.real_s - 1

    def __str__(self) -> str:
        rounds = f"{self.real_rounds} rounds, predicted {self.predicted_rounds}"
        times = f"{self.real_s:6.2f} s, predicted {self.predicted_s:6.2f} s ({self.error:+.1%})"
        return f"{self.workers} workers, {self.mbit:g} Mbit/s, {self.schedule:34} {times}; {rounds}"


def compare(case: Case, folder: Path) -> Iterator[Compared]:
    """All schedules of a case, one after the other."""
    with hosts(case.workers) as found, ray_on(found) as address:
        calibration = train(case, CALIBRATION, folder / f"{case.workers}-calibration", found, address)
    with hosts(case.workers, case.mbit, burst_kb=32, queue_ms=100) as found:
        mbps, latency_ms = probe_link(found, int(case.mbit * 1e6 / 8))
        print(f"link: {mbps:.1f} Mbit/s of content, {latency_ms:.3f} ms", flush=True)
        with ray_on(found) as address:
            for number, schedule in enumerate(SCHEDULES):
                name = f"{case.workers}-{case.mbit:g}-{number}"
                run = train(case, schedule, folder / name, found, address)
                yield compared(case, schedule, run, calibration, mbps, latency_ms)


def train(case: Case, schedule: str, run: Path, found: list[Host], address: str) -> Path:
    """A real run, its driver on the first host."""
    settings = [*case.settings, *(f"algorithm.schedule.{word}" for word in schedule.split())]
    changes = [word for setting in settings for word in ("--set", setting)]
    place = ["--storage", str(run.parent), "--name", run.name, "--address", address]
    done = subprocess.run(
        [*found[0].prefix, sys.executable, "-m", "raysgd_local.cli", "train", *changes, *place],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=HERE,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return run


def compared(case: Case, schedule: str, run: Path, calibration: Path, mbps: float, latency_ms: float) -> Compared:
    """The run against its prediction."""
    from raysgd_local import config
    from raysgd_local.planning.forecast import timing_plan
    from raysgd_local.planning.workload import Workload
    from raysgd_local.run_files import reader
    from raysgd_local.simulation.cluster.loss_curve import RecordedLoss
    from raysgd_local.simulation.cluster.recorded import cluster_of
    from raysgd_local.simulation.timing.lockstep import simulate_timing

    rows = reader.load(run).rounds
    cluster = replace(cluster_of(str(calibration)), bandwidth_mbps=mbps, latency_ms=latency_ms)
    sent = reader.load(calibration).rounds["wire_bytes"].iloc[1]
    state_bytes = round(sent / (2 * (case.workers - 1)))  # of a ring; what it reduces, slots included
    workload = Workload(EPOCH_SAMPLES, state_bytes, (), 0.0, 0.0)
    plan = timing_plan(config.load(run / "config.yaml"), cluster, workload, RecordedLoss(str(calibration)))
    predicted = simulate_timing(plan).rows
    return Compared(
        case.workers,
        case.mbit,
        schedule,
        float(rows["elapsed_s"].iloc[-1]),
        predicted[-1].elapsed_s,
        len(rows),
        len(predicted),
    )


# The link, by a plain socket: what of its rate is left for content, and how long a small message takes.


def probe_link(found: list[Host], size: int) -> tuple[float, float]:
    """Mbit/s, and milliseconds one way, from the first host to the second."""
    me = [sys.executable, __file__]
    with subprocess.Popen([*found[1].prefix, *me, "--serve", found[1].address], stdout=subprocess.PIPE) as server:
        if server.stdout is None or not server.stdout.readline():
            raise RuntimeError("nobody listens")
        probing = [*found[0].prefix, *me, "--probe", found[1].address, str(size)]
        told = subprocess.run(probing, capture_output=True, text=True, check=True).stdout
    mbps, latency_ms = json.loads(told)
    return mbps, latency_ms


def serve(address: str) -> None:
    with socket.create_server((address, PORT)) as listening:
        print("ready", flush=True)
        peer, _ = listening.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with peer:
            size = int.from_bytes(_exactly(peer, 8), "big")
            for _ in range(200):
                peer.sendall(_exactly(peer, 64))
            for part in (size // 4, size):  # after the first the bucket is empty and the window open
                _exactly(peer, part)
                peer.sendall(b"!")


def probe(address: str, size: int) -> None:
    with socket.create_connection((address, PORT)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(size.to_bytes(8, "big"))
        trips_s = [_took_s(peer, 64, 64) for _ in range(200)]
        _took_s(peer, size // 4, 1)
        took_s = _took_s(peer, size, 1)
    print(json.dumps([size * 8 / 1e6 / took_s, 1000 * statistics.median(trips_s) / 2]))


def _took_s(peer: socket.socket, out: int, back: int) -> float:
    began_s = time.perf_counter()
    peer.sendall(bytes(out))
    _exactly(peer, back)
    return time.perf_counter() - began_s


def _exactly(peer: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = peer.recv(min(1 << 20, size - len(received)))
        if not part:
            raise ConnectionError("the other host is gone")
        received += part
    return bytes(received)


def main() -> int:
    parser = docstring_parser(__doc__)
    parser.add_argument("--cases", nargs="+", default=["2:100", "4:400"], metavar="WORKERS:MBIT")
    parser.add_argument("--keep", type=Path, help="the runs' directories go here")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--probe", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    if options.probe:
        probe(options.probe[0], int(options.probe[1]))
        return 0
    return judge([Case.of(words) for words in options.cases], options.keep)


def judge(cases: Sequence[Case], keep: Path | None) -> int:
    """Print each comparison; 1 if one is beyond the limit."""
    found = []
    with kept_or_temporary(keep, "fidelity") as folder:
        for case in cases:
            for one in compare(case, folder):
                print(one, flush=True)
                found.append(one)
    worst = max(abs(one.error) for one in found)
    print(f"{len(found)} configurations; the worst is off by {worst:.1%} (limit {LIMIT:.0%})")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
