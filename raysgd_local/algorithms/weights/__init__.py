"""Weights: each member's weight in a round's mean, and the mean step's factor. One method per file."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from raysgd_local.algorithms.weights.base import Weights
from raysgd_local.algorithms.weights.fednova import FedNova
from raysgd_local.algorithms.weights.samples import Samples

WEIGHTS: Mapping[str, type[Samples | FedNova]] = MappingProxyType({"samples": Samples, "fednova": FedNova})
"""The classes by their `kind` in configurations."""

__all__ = ["WEIGHTS", "FedNova", "Samples", "Weights"]
