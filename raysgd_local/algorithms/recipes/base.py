"""The form of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from raysgd_local.algorithms.algorithm import Algorithm


@dataclass(frozen=True)
class Recipe:
    """A published method under its usual name."""

    name: str
    summary: str  # one line
    citation: str
    formula: str
    traps: str  # pitfalls in practice
    algorithm: Algorithm
