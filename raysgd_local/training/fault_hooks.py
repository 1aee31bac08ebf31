"""Hooks in the training thread, at which rehearsed faults take effect."""

from __future__ import annotations

from raysgd_local.training.replica.replica import Replica


class Interference:
    """Hooks that do nothing, for a run without faults."""

    def before_step(self, replica: Replica) -> None:
        """Called when the loop has called `ctx.step`, with the gradients computed."""

    def after_step(self) -> None:
        """Called when `ctx.step` is done, before the loop goes on."""

    def committed(self, view: int, round: int) -> None:
        """Called when this worker has committed `round` in `view`."""
