"""A batch as it was loaded, and its place in the worker's list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raysgd_local.control.member.events import StreamPosition


@dataclass(frozen=True)
class Loaded:
    """A batch, or several that no step was taken on yet."""

    batch: Any = None  # the newest one
    samples: int = 0  # in all of them
    consumed: int = 0  # positions of the deal, or rows of a stream
    reached: StreamPosition | None = None  # behind them, in a stream

    def and_then(self, later: Loaded) -> Loaded:
        """Return both as one."""
        samples, consumed = self.samples + later.samples, self.consumed + later.consumed
        return Loaded(later.batch, samples, consumed, later.reached or self.reached)
