"""Ray clusters on this machine, and trainers' places on them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray.train.v2.api.config import ScalingConfig  # the class that `ray.train` gives; mypy sees an older one there


@contextmanager
def local_cluster(cpus: int, system_config: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Start a quiet head node with `cpus` logical CPUs, yield its address, and stop it."""
    context: Any = ray.init(
        "local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _system_config=dict(system_config) if system_config else None,
    )
    try:
        yield str(context.address_info["address"])
    finally:
        ray.shutdown()


class Nodes:
    """Another node beside the cluster's head."""

    def __init__(self, address: str, cpus: int) -> None:
        self._address, self._cpus = address, cpus
        self.add()

    def add(self) -> None:
        given: dict[str, Any] = {
            "gcs_address": self._address,
            "include_log_monitor": False,
            "num_cpus": self._cpus,
            "num_gpus": 0,
            "object_store_memory": 80 * 2**20,
            **dict.fromkeys(("node_manager_port", "min_worker_port", "max_worker_port"), 0),
        }
        self._node = Node(RayParams(**given), head=False, spawn_reaper=False)

    def kill(self) -> str:
        """SIGKILL to the node's raylet; the node's id."""
        self._node.kill_raylet(check_alive=False)
        return str(self._node.node_id)

    def clear(self) -> None:
        self._node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)


def elastic(most: int) -> ScalingConfig:
    """Ask for one worker at least and `most` at most."""
    return ScalingConfig(num_workers=(1, most))


def free() -> dict[str, float]:
    """Return the resources that are free."""
    found: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return found


def total() -> dict[str, float]:
    """Return the resources of all nodes."""
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found
