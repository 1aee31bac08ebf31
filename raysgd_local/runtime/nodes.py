"""The cluster's nodes, in Ray's view."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.core.generated import autoscaler_pb2
from ray.experimental import internal_kv

_HEAD = "node:__internal_head__"
_OWN = b"raysgd-local: started by the command"


def head() -> str:
    """Return the id of the cluster's head node; empty if Ray names none."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return next((str(node["NodeID"]) for node in nodes if _HEAD in node["Resources"]), "")


def mark_own() -> None:
    """Note in the cluster that we started it, on this machine, and end it: nobody else can reckon with it."""
    internal_kv._internal_kv_put(_OWN, b"")


def are_local() -> bool:
    """Whether the cluster was started by us, here, and this machine is all of it, so that no worker is elsewhere."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    own: bool = internal_kv._internal_kv_exists(_OWN)
    return own and sum(node["Alive"] for node in nodes) == 1


def drain(node: str, seconds: float, why: str) -> bool:
    """Tell Ray that this node will end in `seconds`, as an autoscaler does. Return whether Ray accepts."""
    deadline_ms = int((time.time() + seconds) * 1000)
    reasons: Any = autoscaler_pb2
    reason = reasons.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    client: Any = ray._private.worker.global_worker.gcs_client  # type: ignore[attr-defined]
    accepted, _ = client.drain_node(node, reason, why, deadline_ms)
    return bool(accepted)
