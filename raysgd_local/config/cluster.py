"""Read a cluster file: YAML in, one frozen and validated model out, without torch or Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from raysgd_local.config import files
from raysgd_local.config.alternatives import BUILDER
from raysgd_local.run_files.paths import expanded
from raysgd_local.simulation.cluster.cluster_model import ClusterModel


def load_cluster(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> ClusterModel:
    """Load a cluster model from a YAML file, or from the measurements in a run's directory, and apply `overrides`.

    Without a path it begins with the defaults. Overrides of None are ignored. Raises `InputError` for values that
    can't be used, with a path that begins with `cluster`.

    >>> load_cluster(overrides={"bandwidth_mbps": 100, "latency_ms": None}).bandwidth_mbps
    100.0
    """
    if path is not None and Path(path := expanded(str(path), "cluster")).is_dir():
        return _measured(path, overrides or {})
    tree: dict[str, Any] = files.read(path, "cluster") if path is not None else {}
    cluster: ClusterModel = BUILDER.build(ClusterModel, tree | _given(overrides or {}), "cluster")
    return cluster


def _measured(run: str | Path, overrides: Mapping[str, Any]) -> ClusterModel:
    from raysgd_local.simulation.cluster.recorded import cluster_of

    given = _given(overrides)
    said: ClusterModel = BUILDER.build(ClusterModel, given, "cluster")
    return replace(cluster_of(str(run)), **{key: getattr(said, key) for key in given})


def _given(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in overrides.items() if value is not None}
