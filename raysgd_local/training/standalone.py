"""A run of one worker in this process, without Ray: the same controller and member, called directly."""

from __future__ import annotations

from typing import Any

import torch

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.clock import SystemClock
from raysgd_local.control.controller import machine as controller
from raysgd_local.control.controller.events import (
    Arrived,
    CheckpointFailed,
    Event,
    Form,
    RunStarted,
    ShardWritten,
    WorkerUp,
)
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings
from raysgd_local.control.controller.state import begin
from raysgd_local.control.messages import Order, Report
from raysgd_local.control.replicated.program import Program
from raysgd_local.training.context import TrainContext
from raysgd_local.training.shell import Shell
from raysgd_local.training.worker_setup import WorkerSetup
from raysgd_local.transport.in_process import InProcessNetwork

_WORKER = "w0"


class DirectLink:
    """A controller in the same thread, which answers a report at once."""

    def __init__(self, settings: Settings) -> None:
        self._clock = SystemClock()
        self._controller = begin(settings)
        self._order: Order | None = None
        self._feed(RunStarted())
        self._feed(WorkerUp(_WORKER, "localhost", 0))

    def _feed(self, event: Event) -> None:
        self._controller, commands = controller.advance(self._controller, event, self._clock.now())
        for command in commands:
            if isinstance(command, Form):
                self._order = command.order

    def arrive(self, report: Report) -> Order:
        self._feed(Arrived(report))
        if self._order is None:
            raise RuntimeError("a controller of one worker answers at once")
        return self._order

    def formed(self, view: int, round: int, steps: int) -> None:
        """Do nothing: there is no failure detector."""

    def tell(self, event: ShardWritten | CheckpointFailed) -> None:
        """Do nothing: no checkpoints are written."""

    def log(self, fields: dict[str, Any]) -> None:
        print(" ".join(f"{name}={value}" for name, value in fields.items()))


def alone(seed: int = 0, period: int = 1) -> TrainContext:
    """Return the context of a run with one worker, whose steps are those of plain PyTorch.

    `period`: steps of a round; it changes nothing but how often a round is resolved.
    """
    settings = Settings(
        Program(FixedPeriod(period)),
        workers_min=1,
        workers_max=1,
        seed=seed,
        checkpoints=CheckpointPolicy(every_epochs=None, last=False),
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    return TrainContext(Shell(WorkerSetup(_WORKER, seed, device=device), InProcessNetwork(), DirectLink(settings)))
