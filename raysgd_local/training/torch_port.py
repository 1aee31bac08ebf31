"""The port of a shell over tensors and a transport, in a real process or in a simulation that really trains."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch

from raysgd_local.algorithms.schedules.modes import modes
from raysgd_local.control.control_slots import Contribution, Control, Flags
from raysgd_local.control.member import events as m
from raysgd_local.control.member.state import Member
from raysgd_local.control.messages import Order, Report, Save
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.records import replace_fields
from raysgd_local.training.data.chunk_store import ChunkStore
from raysgd_local.training.evaluation import Evaluation
from raysgd_local.training.exchange.factory import make_reduction
from raysgd_local.training.exchange.peers import Peers
from raysgd_local.training.exchange.plain import Installing
from raysgd_local.training.fault_hooks import Interference
from raysgd_local.training.loss_meter import LossMeter
from raysgd_local.training.ports import ControllerPort
from raysgd_local.training.replica import checkpoint_parts, transfer
from raysgd_local.training.replica.probe import Probing
from raysgd_local.training.replica.replica import Replica
from raysgd_local.training.replica.rng import seed_generators
from raysgd_local.training.replica.stepping import Stepper
from raysgd_local.training.replica_port import ExchangeResult
from raysgd_local.training.streams.loading import StreamedBatches
from raysgd_local.training.worker_setup import WorkerSetup
from raysgd_local.transport.contract import Network


class TorchPort:
    """The replica, its optimizers, its connection to other members, and its checkpoints."""

    def __init__(
        self,
        place: WorkerSetup,
        network: Network,
        link: ControllerPort,
        background: Executor | None,  # writes checkpoint shards
        courier: Executor | None,  # runs delayed exchanges
    ) -> None:
        self._place = place
        self.peers = Peers(network, courier)
        self.replica = Replica(optimizer_state=place.algorithm.optimizer_state)
        self.stepper = Stepper(self.replica, place.algorithm.lr_scaling)
        self.loss = LossMeter()
        self.evaluation: Evaluation | None = None
        self.interference = Interference()
        self.chunks = ChunkStore()
        self.stream: StreamedBatches | None = None  # being read, or read last
        self.next_stream: StreamedBatches | None = None  # of the epoch that the loop wants
        self._writer = checkpoint_parts.ShardWriter(place.worker, place.storage, link, background, place.claim)
        self._probing: Probing | None = None
        self._rank = 0  # of this member in the newest exchange

    def begin(self) -> None:
        """Build the flat vectors, once the loop has prepared its models and optimizers."""
        self.replica.check_registered()
        if not self._place.algorithm.weights.plain:
            self.stepper.check_linear()
        if "gradients" in modes(self._place.algorithm.schedule):
            self.replica.check_dense()
        self.replica.schedulers.know([prepared.optimizer for prepared in self.replica.optimizers])
        state = self.replica.averaged()
        reduction = make_reduction(state, self.peers.network.allocate, self._place.members, self._place.algorithm)
        self.replica.anchor, self.replica.residual = reduction.anchor, reduction.residual
        self.peers.reduction, self.peers.described = reduction, self.replica.described(state)
        self._probing = Probing(self.replica, self.stepper, state, self.loss)

    def seed(self, member: Member) -> None:
        """Seed the global random generators with a stream of this member's own."""
        order = member.in_force
        seed_generators(self._place.seed, order.incarnation, order.view.number, member.rank)

    @property
    def probing(self) -> Probing:
        if self._probing is None:
            raise RuntimeError("the loop has not begun")
        return self._probing

    # The view.

    def connect(self, command: m.Connect, order: Order) -> None:  # noqa: ARG002
        self.leave()
        self.peers.connect(command.view, command.rank, command.world_size)

    def cut(self, view: int) -> None:
        self.peers.network.cut(view)

    def leave(self) -> None:
        self.peers.leave()
        self.loss.land()

    # Entering a view.

    def heal(self, command: m.Heal, state: Replicated) -> None:
        """Take part in healing. `state` is a healed member's committed state: before the round that it missed."""
        step = Installing(command.mode, command.then, partial(self._joint_step, state.samples))
        transport = self.peers.transport
        control = self.peers.reduction.heal(transport, command.source, command.behind, step)
        if control is not None:
            self.stepper.committed(command.mode, control, self._rank)
            self.loss.reset()

    def transfer(self, command: m.Transfer) -> None:
        transfer.give_state(self.peers.transport, command.source, command.receive, self.replica)
        self.peers.reduction.rebase()

    def align(self, command: m.Align) -> None:
        transfer.give_local_state(self.peers.transport, command.source, command.receive, self.replica)

    def fetch(self, member: Member) -> None:
        self.chunks.settle(self.peers.transport, member.in_force, member.rank)

    def restore(self, name: str, member: Member) -> None:
        if self._place.storage is None:
            raise RuntimeError("a run without storage has no checkpoints")
        self.seed(member)
        world_size = len(member.in_force.view.members)
        checkpoint_parts.load(self._place.storage, name, self.replica, member.rank, world_size)
        self.peers.reduction.rebase()

    # Steps, and probes.

    def local_step(self, command: m.LocalStep, state: Replicated) -> None:
        workers = len(state.left_epoch)
        self.stepper.step(state.samples + command.pending * workers, workers, command.stepping)

    def probe(self, command: m.Mark | m.Look | m.ShowMean | m.Undo) -> None:
        self.probing.obey(command, self.peers.reduction)

    # Rounds.

    def finish_steps(self, said: Contribution, state: Replicated) -> None:
        if state.period.mode == "gradients" and said.steps:
            self.stepper.unscale(said.stepping)
        if self._place.device.type == "cuda":
            torch.cuda.synchronize(self._place.device)

    def describe(self, said: Contribution, state: Replicated) -> Contribution:
        samples, workers = state.samples, len(state.left_epoch)
        return replace_fields(
            said,
            weight=self._weight(said),
            loss_sum=self.loss.value(),
            lr=self.stepper.lr(samples, workers, said.stepping),
            lr_decay=self.stepper.decay(samples),
            lr_settled=self.stepper.settled_lr(samples, workers),
            scale=self.stepper.scale,
            scheduler_steps=self.replica.schedulers.position(said.stepping),
            residual=self.peers.reduction.left_out,
            flags=said.flags | self.stepper.flags | self._diverged(state.period.delta),
            held_out=self.probing.told(said.held_out),
        )

    def _diverged(self, delta: float | None) -> Flags:
        return Flags.DIVERGED if delta is not None and self.peers.reduction.strays(delta) else Flags.NONE

    def _weight(self, said: Contribution) -> float:
        weights = self._place.algorithm.weights
        return said.weight if weights.plain else weights.weight(said.samples, self.stepper.reach(said.steps))

    def exchange(self, command: m.Exchange, said: Contribution, member: Member) -> ExchangeResult:
        self._rank = member.rank
        return self.peers.exchange(command, said, member)

    def finite(self) -> bool:
        return self.peers.reduction.finite()

    def launch(self, command: m.Exchange, said: Contribution, member: Member) -> None:
        self._rank = member.rank
        self.peers.launch(command, said, member)
        self.loss.launch()

    def collect(self) -> ExchangeResult:
        return self.peers.collect()

    def average_probe(self, command: m.AverageProbe) -> ExchangeResult:
        return self.peers.average_probe(command)

    def commit(self, command: m.Commit, state: Replicated) -> None:
        before = state.samples - command.control.samples
        step = Installing(command.mode, command.then, partial(self._joint_step, before))
        self.peers.reduction.commit(step, command.control)
        if not command.control.members[self._rank].flags & Flags.WAITS:
            self.loss.committed()
        self.stepper.committed(command.mode, command.control, self._rank)

    def _joint_step(self, samples_before: int, control: Control) -> None:
        self.stepper.joint_step(samples_before, len(control.members), control)

    def committed(self, view: int, round: int) -> None:
        self.interference.committed(view, round)

    def evaluate(
        self, command: m.Evaluate, state: Replicated, waiting: Callable[[], AbstractContextManager[None]]
    ) -> dict[str, float]:
        if self.evaluation is None:
            raise RuntimeError("no evaluation was asked for")
        with self._previewed(command, state), self.replica.shown():
            return self.evaluation.run(self.peers.transport, waiting)

    def _previewed(self, command: m.Evaluate, state: Replicated) -> AbstractContextManager[None]:
        """Install the mean of the exchange for which all came to evaluate, for a `with` block."""
        if command.control is None or not command.shows:
            return nullcontext()
        step = Installing(state.period.mode, state.period.mode, partial(self._joint_step, state.samples))
        return self.peers.reduction.previewed(step, command.control)

    # Checkpoints and data.

    def save(self, save: Save, rank: int) -> None:
        self._writer.save(save, self.replica, rank)

    def measure(self, command: m.Measure) -> None:
        for stream in {id(one): one for one in (self.stream, self.next_stream)}.values():
            if stream is not None and stream.shards.names == command.source:
                stream.measure(command.shards)
                self.stream = stream

    def with_holdings(self, report: Report) -> Report:
        moved_bytes = self.chunks.take_moved_bytes()
        report = replace_fields(report, chunks=self.chunks.held.chunks, moved_bytes=moved_bytes)
        if self.next_stream is not None and report.shards is not None:
            report = replace_fields(report, shards=self.next_stream.shards)
        if self.stream is not None:
            report = replace_fields(report, source=self.stream.shards.names, found=self.stream.found())
        return report

    def close(self) -> None:
        """Leave the view, so that the other members notice at once, and finish writing."""
        self.peers.close()
        self.loss.land()
        self._writer.close()
