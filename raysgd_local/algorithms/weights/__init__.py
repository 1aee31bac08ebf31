"""How much a member counts in a round's mean, and how far the mean step goes: one method a file."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from raysgd_local.algorithms.weights.base import Weights
from raysgd_local.algorithms.weights.fednova import FedNova
from raysgd_local.algorithms.weights.samples import Samples

WEIGHTS: Mapping[str, type[Samples | FedNova]] = MappingProxyType({"samples": Samples, "fednova": FedNova})
"""From the kind that a configuration names to the class with its options."""

__all__ = ["WEIGHTS", "FedNova", "Samples", "Weights"]
