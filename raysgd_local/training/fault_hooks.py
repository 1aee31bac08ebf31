"""The places in the training thread where faults that are rehearsed have their effect."""

from __future__ import annotations

from raysgd_local.training.replica.replica import Replica


class Interference:
    """Does nothing: a run without a schedule of faults."""

    def before_step(self, replica: Replica) -> None:
        """The loop has called `ctx.step`; the gradients are there."""

    def after_step(self) -> None:
        """The loop goes on."""

    def committed(self, view: int, round: int) -> None:
        """This worker has committed `round` in `view`."""
