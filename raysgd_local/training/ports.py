"""A shell's connection to the controller, and the records that it sends there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from raysgd_local.control.controller.events import CheckpointFailed, ShardWritten
from raysgd_local.control.messages import Order, Report


@dataclass(frozen=True)
class TrainingStatus:
    """The state of training on one member, for live progress."""

    epoch: float  # finished epochs, with a fraction for the open one
    epochs: int  # total to train
    round: int  # newest committed round
    tau: int  # present period
    workers: int  # members of the view
    loss: float  # mean training loss of the newest round; NaN before the first
    samples: int  # total training samples
    elapsed_s: float  # training time
    compute_s: float  # of the newest round: local steps
    sync_s: float  # of the newest round: averaging
    wait_s: float  # of the newest round: waiting for slower members
    metrics: dict[str, float]  # of the newest evaluation


class ControllerPort(Protocol):
    """A worker's connection to the controller."""

    def arrive(self, report: Report) -> Order:
        """Send the report to the controller, and wait for its order."""
        ...

    def formed(self, view: int, round: int, steps: int) -> None:
        """Announce that this worker has committed the first round of a view."""
        ...

    def tell(self, event: ShardWritten | CheckpointFailed) -> None:
        """Report that a shard of a checkpoint was written, or could not be. May be called from any thread."""
        ...

    def log(self, fields: dict[str, Any]) -> None:
        """Record the user's own values in `events.jsonl`."""
        ...


class Released(BaseException):
    """Unwinds the training loop, because the controller ended this worker. Not an error, so not an `Exception`."""
