"""Hosts that are network namespaces on one switch, with links of a given rate, and Ray on them. Needs root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_RAY_PORT = 6379
_STORE_BYTES = 100_000_000


@dataclass(frozen=True)
class Host:
    """`address` is how the others reach it; `prefix` runs a command there. Its plug is `port` of the switch `hub`."""

    name: str
    address: str
    hub: str
    port: str

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    def unplug(self) -> None:
        """Nothing reaches it any more, nor does it reach anybody."""
        _call(f"ip -n {self.hub} link set {self.port} down")

    def plug_in(self) -> None:
        _call(f"ip -n {self.hub} link set {self.port} up")


@contextmanager
def hosts(count: int, mbit: float | None = None, burst_kb: int = 256, queue_ms: int = 20) -> Iterator[list[Host]]:
    """`count` hosts; each way of each link is held to `mbit` Mbit/s by `tc tbf` (None: as fast as memory).

    Whatever still runs there is killed at the end.
    """
    tag = f"rsl{os.getpid()}"
    hub = f"{tag}hub"
    found = [Host(f"{tag}h{index}", f"10.77.0.{index + 1}", hub, f"p{index}") for index in range(count)]
    try:
        _call(f"ip netns add {hub}")
        _call(f"ip -n {hub} link add name br0 type bridge")
        _call(f"ip -n {hub} link set br0 up")
        for host in found:
            _connect(host)
        if mbit is not None:
            for namespace, device in [pair for h in found for pair in ((h.name, "eth0"), (hub, h.port))]:
                shape = f"rate {mbit}mbit burst {burst_kb}kb latency {queue_ms}ms"
                _call(f"tc -n {namespace} qdisc add dev {device} root tbf {shape}")
        yield found
    finally:
        for name in [*(host.name for host in found), hub]:
            _kill_all(name)
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)


def _connect(host: Host) -> None:
    _call(f"ip netns add {host.name}")
    _call(f"ip -n {host.hub} link add {host.port} type veth peer name eth0 netns {host.name}")
    _call(f"ip -n {host.hub} link set {host.port} master br0 up")
    _call(f"ip -n {host.name} addr add {host.address}/24 dev eth0")
    for device in ("eth0", "lo"):
        _call(f"ip -n {host.name} link set {device} up")
    # Ray finds its own address by the route to the world; no traffic goes there.
    _call(f"ip -n {host.name} route add default via 10.77.0.254 dev eth0")


def _kill_all(namespace: str) -> None:
    listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in map(int, listed.stdout.split()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _call(command: str) -> None:
    subprocess.run(command.split(), check=True)


@contextmanager
def ray_on(found: list[Host], cpus: int = 1) -> Iterator[str]:
    """A Ray cluster with one node of so many logical CPUs on each host, the first its head; yields its address."""
    folder = Path(tempfile.mkdtemp(prefix="rsl-ray-"))
    head = f"{found[0].address}:{_RAY_PORT}"
    common = [f"--num-cpus={cpus}", "--disable-usage-stats", f"--object-store-memory={_STORE_BYTES}"]
    try:
        for index, host in enumerate(found):
            role = (
                ["--head", f"--port={_RAY_PORT}", "--include-dashboard=false", f"--temp-dir={folder}"]
                if index == 0
                else [f"--address={head}"]
            )
            _ray_start(host, [*role, f"--node-ip-address={host.address}", *common], folder / f"node-{index}.log")
        yield head
    finally:
        for host in found:
            _kill_all(host.name)
        time.sleep(0.5)  # the killed processes may still be writing
        shutil.rmtree(folder, ignore_errors=True)


def _ray_start(host: Host, arguments: list[str], log: Path) -> None:
    """Detached processes that end with the namespace: `ray stop` would stop other clusters of this machine too."""
    ray = str(Path(sys.executable).with_name("ray"))
    with log.open("w") as stream:
        done = subprocess.run(
            [*host.prefix, ray, "start", *arguments],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment(),
            timeout=120,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"ray start on {host.name}: {log.read_text()}")


def run_script(host: Host, script: str, *words: str) -> None:
    """Run a Python script on a host; it and its workers import from its own folder."""
    folders = [Path(script).parent, os.environ.get("PYTHONPATH", "")]
    python_path = {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    subprocess.run([*host.prefix, sys.executable, script, *words], env=environment() | python_path, check=True)


def environment() -> dict[str, str]:
    """For processes on a host: one torch thread, no token, and no cluster of somebody else's."""
    others = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return others | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
