"""The shell of a process that trains: a member's shell over tensors, with the parts that `TrainContext` uses."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

from raysgd_local.clock import Clock, SystemClock
from raysgd_local.control.member import events as m
from raysgd_local.training.data.loading import DealtBatches
from raysgd_local.training.evaluation import Evaluation
from raysgd_local.training.exchange.plain import Reduction
from raysgd_local.training.fault_hooks import Interference
from raysgd_local.training.member_shell import MemberShell
from raysgd_local.training.ports import ControllerPort, TrainingStatus
from raysgd_local.training.replica.probe import Probing
from raysgd_local.training.status import status_of
from raysgd_local.training.stopwatch import Stopwatch
from raysgd_local.training.streams.loading import StreamedBatches
from raysgd_local.training.torch_port import TorchPort
from raysgd_local.training.worker_setup import WorkerSetup
from raysgd_local.transport.contract import Network


class Shell(MemberShell):
    """Runs one member over tensors."""

    def __init__(
        self,
        place: WorkerSetup,
        network: Network,
        link: ControllerPort,
        clock: Clock | None = None,
        background: Executor | None = None,  # writes checkpoint shards
        courier: Executor | None = None,  # runs delayed exchanges
    ) -> None:
        self.place = place
        self._port = port = TorchPort(place, network, link, background, courier)
        self.replica, self.stepper, self.loss, self.chunks = port.replica, port.stepper, port.loss, port.chunks
        super().__init__(place.worker, port, link, Stopwatch(clock or SystemClock()))

    def begin(self) -> None:
        """Begin training, once the loop has prepared everything: ask for the model, and wait for it."""
        self._port.begin()
        self.drive(m.LoopStarted(self.epochs))
        if not self.order.restore:
            self._port.seed(self.member)

    @property
    def stream(self) -> StreamedBatches | None:
        """The stream that the loop has asked for last."""
        return self._port.next_stream

    @stream.setter
    def stream(self, stream: StreamedBatches | None) -> None:
        self._port.next_stream = stream

    def reads(self, source: DealtBatches | StreamedBatches) -> None:
        """Begin to read the part of a stream that was dealt: from now on reports tell what is found out there."""
        if isinstance(source, StreamedBatches):
            self._port.stream = source

    @property
    def evaluation(self) -> Evaluation | None:
        return self._port.evaluation

    @evaluation.setter
    def evaluation(self, evaluation: Evaluation) -> None:
        self._port.evaluation = evaluation

    @property
    def interference(self) -> Interference:
        return self._port.interference

    @interference.setter
    def interference(self, interference: Interference) -> None:
        self._port.interference = interference

    @property
    def reduction(self) -> Reduction:
        """The flat vectors. Raises `RuntimeError` before `begin`."""
        return self._port.peers.reduction

    @property
    def probing(self) -> Probing:
        """The replica's side of probes. Raises `RuntimeError` before `begin`."""
        return self._port.probing

    def log(self, values: dict[str, Any]) -> None:
        """Record the user's own values, with this worker's name and the newest round."""
        self._link.log({"worker": self.place.worker, "round": self.state.round, **values})

    def status(self) -> TrainingStatus | None:
        """Return the state of training, for live progress. May be called from any thread."""
        member = self.member
        row = member.rounds[-1] if member.rounds else self._told_row
        return status_of(member, self.epochs, self.stepper.epoch_samples, row)

    def close(self) -> None:
        """Leave the view, so that the other members notice at once, and finish writing."""
        self._port.close()
