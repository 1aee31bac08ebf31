"""Averagings: with whom members average, and how far they move. One method per file; `state.anchor` executes them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from raysgd_local.algorithms.averaging.base import Averaging, Coupling
from raysgd_local.algorithms.averaging.blocks import Blocks
from raysgd_local.algorithms.averaging.elastic import Elastic
from raysgd_local.algorithms.averaging.gossip import Gossip, mixing
from raysgd_local.algorithms.averaging.mean import Mean

AVERAGINGS: Mapping[str, type[Averaging]] = MappingProxyType(
    {"mean": Mean, "elastic": Elastic, "gossip": Gossip, "blocks": Blocks}
)
"""The classes by their `kind` in configurations."""

__all__ = ["AVERAGINGS", "Averaging", "Blocks", "Coupling", "Elastic", "Gossip", "Mean", "mixing"]
