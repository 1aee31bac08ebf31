"""A cluster's file: YAML in, one frozen and validated model out, without torch or Ray."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysgd_local.config import files
from raysgd_local.config.alternatives import BUILDER
from raysgd_local.simulation.cluster_model import ClusterModel


def load_cluster(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> ClusterModel:
    """The cluster that a YAML file describes (without one: the defaults), with `overrides` in place of its keys.

    An override of None leaves the file's value. Raises `InputError` for whatever can't be used, with a path that
    begins with `cluster`.

    >>> load_cluster(overrides={"bandwidth_mbps": 100, "latency_ms": None}).bandwidth_mbps
    100.0
    """
    tree: dict[str, Any] = files.read(path, "cluster") if path is not None else {}
    tree |= {key: value for key, value in (overrides or {}).items() if value is not None}
    cluster: ClusterModel = BUILDER.build(ClusterModel, tree, "cluster")
    return cluster
