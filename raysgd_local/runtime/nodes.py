"""The cluster's nodes, in Ray's view."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.core.generated import autoscaler_pb2

_HEAD = "node:__internal_head__"


def head() -> str:
    """Return the id of the cluster's head node; empty if Ray names none."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return next((str(node["NodeID"]) for node in nodes if _HEAD in node["Resources"]), "")


def drain(node: str, seconds: float, why: str) -> bool:
    """Tell Ray that this node will end in `seconds`, as an autoscaler does. Return whether Ray accepts."""
    deadline_ms = int((time.time() + seconds) * 1000)
    reasons: Any = autoscaler_pb2
    reason = reasons.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    client: Any = ray._private.worker.global_worker.gcs_client  # type: ignore[attr-defined]
    accepted, _ = client.drain_node(node, reason, why, deadline_ms)
    return bool(accepted)
