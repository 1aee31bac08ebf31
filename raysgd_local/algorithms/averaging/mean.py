"""Plain averaging."""

from __future__ import annotations

from dataclasses import dataclass

from raysgd_local.algorithms.averaging.base import Coupling


@dataclass(frozen=True)
class Mean:
    """All members become the weighted mean, or what the outer step makes of it: x_i ← Σ_j p_j x_j."""

    def coupling(self, workers: int) -> Coupling | None:  # noqa: ARG002
        return None
