"""The data sets that a trainer passes to its workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import cloudpickle  # the plain one loses the owner of Ray's objects: reading them would wait for ever

from raysgd_local.sources.choice import is_ray_data
from raysgd_local.sources.ray_data import RayData


def pickled_datasets(datasets: Mapping[str, Any]) -> bytes:
    """Return the data sets for workers. Those of Ray Data are computed, once, so that all read the same blocks."""
    if not datasets:
        return b""
    sent = {name: RayData(dataset) if is_ray_data(dataset) else dataset for name, dataset in datasets.items()}
    pickled: bytes = cloudpickle.dumps(sent)  # type: ignore[no-untyped-call]
    return pickled


def opened_datasets(pickled: bytes) -> dict[str, Any]:
    """Return the trainer's data sets, by name."""
    opened: dict[str, Any] = cloudpickle.loads(pickled) if pickled else {}
    return opened
