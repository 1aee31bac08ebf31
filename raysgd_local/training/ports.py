"""What a worker's shell needs of the controller's side, wherever that runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from raysgd_local.control.controller.events import CheckpointFailed, ShardWritten
from raysgd_local.control.messages import Order, Report


@dataclass(frozen=True)
class TrainingStatus:
    """Where training is, as one member sees it: what live progress shows. `epochs` is how many there will be."""

    epoch: float
    epochs: int
    round: int
    tau: int
    workers: int
    loss: float
    samples: int
    elapsed_s: float
    compute_s: float
    sync_s: float
    wait_s: float
    metrics: dict[str, float]


class ControllerPort(Protocol):
    """The way from a worker to the controller."""

    def arrive(self, report: Report) -> Order:
        """Tell the controller and wait for its order."""
        ...

    def formed(self, view: int, round: int, steps: int) -> None:
        """The first round of a view is committed here."""
        ...

    def tell(self, event: ShardWritten | CheckpointFailed) -> None:
        """What became of a checkpoint's part; from any thread."""
        ...

    def log(self, fields: dict[str, Any]) -> None:
        """The user's own line for `events.jsonl`."""
        ...


class Released(BaseException):
    """Unwinds the training loop: the controller ended this worker. Not an error, so not an `Exception`."""
