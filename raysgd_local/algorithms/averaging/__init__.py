"""With whom and how far: one method a file. They say how members are coupled; `anchor` does it."""

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
"""From the kind that a configuration names to the class with its options."""

__all__ = ["AVERAGINGS", "Averaging", "Blocks", "Coupling", "Elastic", "Gossip", "Mean", "mixing"]
