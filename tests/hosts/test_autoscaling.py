"""A cluster whose nodes an autoscaler starts and takes back: Ray's own, with its provider that plays nodes on one
machine."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml
from laboratory import WAIT_FOR_NODES, Submitted
from machines import SHARED, machines, missing, wait_for

pytestmark = [pytest.mark.hosts, pytest.mark.long]

HEAD = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"  # what the provider calls it
MOST_NODES = 2
CONFIG = {
    "cluster_name": "played",
    "max_workers": MOST_NODES,
    "provider": {
        "type": "external",  # by its own name it wants a file that Ray's wheel lacks
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "head_node_id": HEAD,
        "launch_multiple": True,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "trainer": {
            "resources": {"CPU": 1, "object_store_memory": 80_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": MOST_NODES,
        },
    },
    "head_node_type": "ray.head.default",
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 0.1,
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
    **{
        f"{part}_commands": []
        for part in ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    },
}
ENVIRONMENT = (
    f"export RAY_FAKE_CLUSTER=1 RAY_enable_autoscaler_v2=1 AUTOSCALER_UPDATE_INTERVAL_S=1 RAY_AUTH_MODE=disabled "
    f"RAY_CLOUD_INSTANCE_ID={HEAD} RAY_OVERRIDE_NODE_ID_FOR_TESTING={HEAD}"
)
RUN = (
    "env --unset=RAY_OVERRIDE_NODE_ID_FOR_TESTING raysgd-local train --address {address}:6379 --name grown "
    f"--storage {SHARED}/runs --set workers.min=1 --set workers.max=3 --set task.epochs=100000"
)
TAKE_BACK = """
import ray
from raysgd_local.runtime import nodes
ray.init("auto", logging_level="ERROR", log_to_driver=False)
one = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
assert nodes.drain(one, 30, "the machine is wanted elsewhere")
"""


@pytest.fixture
def machine():
    if why := missing():
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="rsl-scale-"))
    try:
        with machines(1, folder / "lab") as (machine,):
            config = folder / "lab" / "shared" / "cluster.yaml"
            config.write_text(yaml.safe_dump(CONFIG))
            start = (
                "ray start --head --port=6379 --num-cpus=0 --object-store-memory=80000000 --disable-usage-stats"
            )
            done = machine.run(f"{ENVIRONMENT}; {start} --autoscaling-config={SHARED}/cluster.yaml")
            assert done.returncode == 0, done.stdout + done.stderr
            yield machine
            print(machine.run("tail -n 30 /tmp/ray/session_latest/logs/monitor.*").stdout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_nodes(machine, count: int, limit_s: float) -> None:
    line = f"RAY_AUTH_MODE=disabled timeout {limit_s:g} python -c '{WAIT_FOR_NODES}' {count}"
    assert machine.run(line).returncode == 0, machine.run("RAY_AUTH_MODE=disabled ray status").stdout


def test_unplaced_workers_start_nodes_and_a_run_bears_that_one_is_taken_back(machine):
    shared = machine.folder.parent / "shared"
    log = shared / "log"
    line = f"export RAY_AUTH_MODE=disabled; exec {RUN.format(address=machine.address)}"
    with log.open("wb") as stream:
        command = subprocess.Popen(machine.command(line), stdout=stream, stderr=stream, stdin=subprocess.DEVNULL)
    run = Submitted(command, shared / "runs" / "grown", log)
    seen = run.wait_for_workers(2, 120)
    assert (
        "'CPU': 1.0" in machine.run("RAY_AUTH_MODE=disabled ray status").stdout.split("Demands:")[1]
    )  # the third
    done = machine.run(f"RAY_AUTH_MODE=disabled python -c '{TAKE_BACK}'")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: run.events("worker_left"), 30, "its worker's leaving")
    seen = run.wait_for_workers(1, 30, after=seen)
    run.wait_for_workers(2, 120, after=seen)  # on another node, for which its worker's successor was the demand
    machine.run("pkill -INT -f '[r]aysgd-local train'")
    assert run.ended() == 130, log.read_text()
    result = run.result()
    assert (result["status"], result["workers_lost"]) == ("interrupted", 0)
    assert result["samples_lost"] == result["samples_repeated"] == 0
    wait_for_nodes(machine, 1, 60)  # idle ones are given back: the head is left
