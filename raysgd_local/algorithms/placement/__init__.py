"""Which worker holds which part of the training set: the kinds to choose from, and the table of holders."""

from __future__ import annotations

from raysgd_local.algorithms.placement.kinds import (
    PLACEMENTS,
    ChunkPlacement,
    DisjointChunks,
    LabelSkewed,
    RedundantChunks,
)

__all__ = ["PLACEMENTS", "ChunkPlacement", "DisjointChunks", "LabelSkewed", "RedundantChunks"]
