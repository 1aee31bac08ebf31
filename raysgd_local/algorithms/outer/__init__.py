"""Outer steps apply the round's mean step to the anchor: one method per file. `state.anchor` executes them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from raysgd_local.algorithms.outer.base import Outer, OuterStep
from raysgd_local.algorithms.outer.block_momentum import BlockMomentum
from raysgd_local.algorithms.outer.max_change import MaxChange
from raysgd_local.algorithms.outer.optimizer import OuterOptimizer
from raysgd_local.algorithms.outer.slowmo import SlowMo

OUTERS: Mapping[str, type[OuterOptimizer | BlockMomentum | SlowMo | MaxChange]] = MappingProxyType(
    {"optimizer": OuterOptimizer, "block-momentum": BlockMomentum, "slowmo": SlowMo, "max-change": MaxChange}
)
"""The classes by their `kind` in configurations."""

__all__ = ["OUTERS", "BlockMomentum", "MaxChange", "Outer", "OuterOptimizer", "OuterStep", "SlowMo"]
