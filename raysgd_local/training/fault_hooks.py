"""Where faults that are rehearsed reach into the training thread."""

from __future__ import annotations

from raysgd_local.training.replica.replica import Replica


class Interference:
    """Nobody interferes: what a run without a schedule of faults has."""

    def before_step(self, replica: Replica) -> None:
        """The loop has called `ctx.step`; the gradients are there."""

    def after_step(self) -> None:
        """The loop goes on."""

    def committed(self, view: int, round: int) -> None:
        """A round is committed."""
