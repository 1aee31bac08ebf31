"""What a recipe is."""

from __future__ import annotations

from dataclasses import dataclass

from raysgd_local.algorithms.algorithm import Algorithm


@dataclass(frozen=True)
class Recipe:
    """A method by the name people know it by; `summary` is one line, `traps` what goes wrong in practice."""

    name: str
    summary: str
    citation: str
    formula: str
    traps: str
    algorithm: Algorithm
