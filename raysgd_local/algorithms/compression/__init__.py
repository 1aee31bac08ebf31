"""Compressions of the steps that members send: one method per file. `state.compressed_messages` makes bytes of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from raysgd_local.algorithms.compression.base import Compression
from raysgd_local.algorithms.compression.half import Half
from raysgd_local.algorithms.compression.int8 import Int8
from raysgd_local.algorithms.compression.random_k import RandomK
from raysgd_local.algorithms.compression.sign import Sign
from raysgd_local.algorithms.compression.top_k import TopK

COMPRESSIONS: Mapping[str, type[Half | Int8 | TopK | RandomK | Sign]] = MappingProxyType(
    {"half": Half, "int8": Int8, "top-k": TopK, "random-k": RandomK, "sign": Sign}
)
"""The classes by their `kind` in configurations."""

__all__ = ["COMPRESSIONS", "Compression", "Half", "Int8", "RandomK", "Sign", "TopK"]
