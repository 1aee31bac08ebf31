"""The member's shell in a real process: runs its commands, measures, and feeds back what came of them.

It holds no decision of its own: every branch here is about *how* a command is done.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import torch

from raysgd_local.clock import Clock, SystemClock
from raysgd_local.control.control_slots import Contribution, Control, Flags
from raysgd_local.control.member import events as m
from raysgd_local.control.member import machine
from raysgd_local.control.member.free_steps import Allowance
from raysgd_local.control.messages import Beat, Order, Report
from raysgd_local.control.replicated.extent import Extent
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import Replicated, extent
from raysgd_local.errors import CheckpointError, TransportError
from raysgd_local.records import RoundRow
from raysgd_local.training.data.chunk_store import ChunkStore
from raysgd_local.training.evaluation import Evaluation
from raysgd_local.training.exchange.background import BackgroundExchange
from raysgd_local.training.exchange.factory import make_reduction
from raysgd_local.training.exchange.plain import Installing, Reduction
from raysgd_local.training.fault_hooks import Interference
from raysgd_local.training.ports import ControllerPort, Released, TrainingStatus
from raysgd_local.training.replica import checkpoint_parts, transfer
from raysgd_local.training.replica.probe import Probing
from raysgd_local.training.replica.replica import Replica
from raysgd_local.training.replica.rng import seed_generators
from raysgd_local.training.replica.stepping import Stepper
from raysgd_local.training.status import status_of
from raysgd_local.training.stopwatch import LossMeter, Stopwatch
from raysgd_local.training.worker_setup import WorkerSetup
from raysgd_local.transport.contract import Network, Transport


class Shell:
    """Runs one member. All methods but `post` belong to the training thread; `background` writes checkpoint parts,
    `courier` runs exchanges while the loop goes on.
    """

    def __init__(
        self,
        place: WorkerSetup,
        network: Network,
        link: ControllerPort,
        clock: Clock | None = None,
        background: Executor | None = None,
        courier: Executor | None = None,
    ) -> None:
        self.place, self._network, self._link = place, network, link
        self.member = machine.Member(place.worker)
        self.replica = Replica(optimizer_state=place.algorithm.optimizer_state)
        self.stepper = Stepper(self.replica, place.algorithm.lr_scaling)
        self._allowance = Allowance()
        self.loss = LossMeter()
        self.watch = Stopwatch(clock or SystemClock())
        self.evaluation: Evaluation | None = None
        self.interference = Interference()
        self.chunks = ChunkStore()
        self._writer = checkpoint_parts.ShardWriter(place.worker, place.storage, link, background)
        self._inbox: queue.SimpleQueue[m.Event] = queue.SimpleQueue()
        self._transport: Transport | None = None
        self._reduction: Reduction | None = None
        self._sent_bytes = 0
        self._announced = 0
        self._courier = BackgroundExchange(courier)
        self.healed = 0  # rounds that it missed and took from others
        self._probing: Probing | None = None
        self._told_row: RoundRow | None = None  # the newest that the controller knows
        self.steps = self.epochs = 0

    def post(self, event: m.Event) -> None:
        """An event from outside the training thread; it is handled at the loop's next call."""
        if isinstance(event, m.Cut):
            self._network.cut(event.view)
        self._inbox.put(event)

    @property
    def order(self) -> Order:
        return self.member.in_force

    @property
    def state(self) -> Replicated:
        return self.member.known

    def begin(self) -> None:
        """Everything is prepared: ask for state."""
        self.replica.check_registered()
        if not self.place.algorithm.weights.plain:
            self.stepper.check_linear()
        state = self.replica.averaged()
        self._reduction = make_reduction(state, self._network.allocate, self.place.members, self.place.algorithm)
        self.replica.anchor, self.replica.residual = self._reduction.anchor, self._reduction.residual
        self._probing = Probing(self.replica, self.stepper, state, self.loss)
        self.drive(m.LoopStarted(self.epochs))
        if not self.order.restore:
            self._seed()

    def _seed(self) -> None:
        """A stream of random numbers of its own for every worker that enters."""
        seed_generators(self.place.seed, self.order.incarnation, self.order.view.number, self.member.rank)

    def step(self, samples: int, consumed: int) -> None:
        """Gradients are ready, over `samples` samples and `consumed` positions of the deal."""
        self.steps += 1
        if self._allowance.free and self._inbox.empty():
            self._local_step(self.member.samples + self._allowance.take(samples, consumed))
        else:
            self.drive(m.StepDue(samples, consumed))

    def _local_step(self, pending: int) -> None:
        state = self.state
        workers = len(state.left)
        self.stepper.step(state.samples + pending * workers, workers)

    def drive(self, event: m.Event) -> None:
        """Feed the member an event and run its commands until it hands control back to the loop."""
        events: deque[m.Event] = deque([*self._allowance.ended(), *self._posted(), event])
        while events:
            self.member, commands = machine.advance(self.member, events.popleft())
            for command in commands:
                outcome = self._run(command)
                if outcome is not None:
                    events.extend([*self._posted(), outcome])

    def _posted(self) -> list[m.Event]:
        posted: list[m.Event] = []
        while not self._inbox.empty():
            posted.append(self._inbox.get())
        return posted

    def _run(self, command: m.Command) -> m.Event | None:
        """Do what one command says; None where the member waits for no answer."""
        match command:
            case m.LocalStep(pending):
                self._local_step(pending)
            case m.Proceed(free):
                self._allowance.grant(free)
                self.watch.work_begins()
            case m.Mark() | m.Look() | m.ShowMean() | m.Undo():
                self.probing.obey(command, self._reducing)
            case m.AverageProbe():
                return self._awaited(lambda: self._average_probe(command))
            case m.Evaluate():
                return self._awaited(lambda: self._evaluate(command))
            case m.Launch(exchange):
                said, reach = self._measured(exchange.said), self._reach()
                self._courier.launch(self._reducing, self._transport, exchange, said, reach)
                self.loss.launch()
            case m.Collect():
                return self._awaited(self._collect)
            case m.Exchange():
                return self._awaited(lambda: self._exchange(command))
            case m.Commit():
                self._commit(command)
            case m.Arrive(report):
                return self._arrive(self._told(report))
            case m.CopyState(save):
                self._writer.save(save, self.replica, self.member.rank)
            case m.Exit(why):
                raise Released(why)
            case m.Restore(name):
                return self._restored(name)
            case _:
                return self._awaited(lambda: self._take_part(command))
        return None

    def _awaited(self, work: Callable[[], m.Event]) -> m.Event:
        """A command that others take part in: it may fail."""
        view = self.order.view.number
        try:
            return work()
        except TransportError as error:
            self._leave()
            return m.Failed(view, str(error))

    def _take_part(self, command: m.Command) -> m.Event:
        self.watch.work_ends()
        with self.watch.waiting():
            self._join_in(command)
        return m.Done(self.order.view.number)

    def _join_in(self, command: m.Command) -> None:
        match command:
            case m.Connect(view, rank, world_size):
                self._connect(view, rank, world_size)
            case m.Heal(source, behind, mode, then):
                before = self.state  # a healed member still stands before the round that it missed
                step = Installing(mode, then, lambda c: self._joint_step(before, c))
                self._reducing.heal(self._connected, source, behind, step)
                if behind:
                    self.loss.reset()
                    self.healed += 1
            case m.Transfer(source, receive):
                transfer.give_state(self._connected, source, receive, self.replica)
                self._reducing.rebase()
            case m.Align(source, receive):
                transfer.give_local_state(self._connected, source, receive, self.replica)
            case m.Fetch():
                self.chunks.settle(self._connected, self.order, self.member.rank)
            case _:
                raise TypeError(f"not a member's command: {command!r}")

    def _connect(self, view: int, rank: int, world_size: int) -> None:
        self._leave()
        self._transport = self._network.connect(view, rank, world_size)
        self._reducing.seat(world_size)

    def _leave(self) -> None:
        if self._transport is not None:
            if self._courier.flies:
                self._transport.cut()
                self._courier.land()
            self._transport.close()
            self._transport = None
        if self._reduction is not None:
            self._reduction.abandon()
        self.loss.land()

    def _restored(self, name: str) -> m.Event:
        view = self.order.view.number
        try:
            self._restore(name)
        except CheckpointError as error:
            self._leave()
            return m.Failed(view, str(error), damaged=name)
        return m.Done(view)

    def _restore(self, name: str) -> None:
        if self.place.storage is None:
            raise RuntimeError("a run without storage has no checkpoints")
        world_size = len(self.order.view.members)
        self._seed()
        checkpoint_parts.load(self.place.storage, name, self.replica, self.member.rank, world_size)
        self._reducing.rebase()

    def _exchange(self, command: m.Exchange) -> m.Event:
        transport = self._connected
        if command.mode == "gradients" and command.said.steps:
            self.stepper.unscale()
        said = self._measured(command.said)
        began_s, sent = self.watch.now(), transport.wire_bytes()
        with self.watch.waiting():
            control = self._reducing.reduce(transport, command.mode, command.round, said, self._reach())
        self._sent_bytes = transport.wire_bytes() - sent
        return m.Exchanged(command.view, control, self.watch.now() - began_s, self._reducing.finite())

    @property
    def rewound(self) -> int:
        """How often the loop was put back to batches that it had been given."""
        return self.probing.times + self.healed

    @property
    def probing(self) -> Probing:
        """What members try and undo. Once the loop has begun."""
        if self._probing is None:
            raise RuntimeError("the loop has not begun")
        return self._probing

    def _average_probe(self, command: m.AverageProbe) -> m.Event:
        transport = self._connected
        self.watch.work_ends()
        sent = transport.wire_bytes()
        with self.watch.waiting():
            control = self._reducing.average(transport, command.round, command.said)
        self._sent_bytes += transport.wire_bytes() - sent
        return m.Averaged(command.view, control)

    def _collect(self) -> m.Event:
        view = self.order.view.number
        self.watch.work_ends()
        began_s = self.watch.now()
        with self.watch.waiting():
            control, self._sent_bytes = self._courier.collect()
        return m.Exchanged(view, control, self.watch.now() - began_s, self._reducing.finite())

    def _reach(self) -> Callable[[Control], Extent]:
        """How far an averaging reaches, from what is known now."""
        return partial(_extent_of, self.state, self.order.program)

    def _measured(self, said: Contribution) -> Contribution:
        if self.place.device.type == "cuda":
            torch.cuda.synchronize(self.place.device)
        compute_s, clock_s = self.watch.exchange_begins()
        samples, workers = self.state.samples, len(self.state.left)
        return replace(
            said,
            weight=self._weight(said),
            loss_sum=self.loss.value(),
            compute_s=compute_s,
            clock_s=clock_s,
            lr=self.stepper.lr(samples, workers),
            lr_decay=self.stepper.decay(samples),
            lr_settled=self.stepper.settled_lr(samples, workers),
            scale=self.stepper.scale,
            residual=self._reducing.left_out,
            wire_bytes=self._take_sent(),
            flags=said.flags | self.stepper.flags | self._diverged(),
            held_out=self.probing.told(said.held_out),
        )

    def _diverged(self) -> Flags:
        delta = self.state.period.delta
        return Flags.DIVERGED if delta is not None and self._reducing.strays(delta) else Flags.NONE

    def _weight(self, said: Contribution) -> float:
        weights = self.place.algorithm.weights
        return said.weight if weights.plain else weights.weight(said.samples, self.stepper.reach(said.steps))

    def _commit(self, command: m.Commit) -> None:
        control = command.control
        before = replace(self.state, samples=self.state.samples - control.samples)
        step = Installing(command.mode, command.then, lambda c: self._joint_step(before, c))
        self._reducing.commit(step, control)
        self.loss.committed()
        self.stepper.committed(command.mode, control)
        view = self.order.view.number
        if self._announced != view:
            self._announced = view
            self._link.formed(view, self.state.round, self.steps)
        self.interference.committed(view, self.state.round)

    def _joint_step(self, before: Replicated, control: Control) -> None:
        self.stepper.joint_step(before.samples, len(control.members), control)

    def _evaluate(self, command: m.Evaluate) -> m.Event:
        self.watch.work_ends()
        began_s = self.watch.now()
        if self.evaluation is None:
            raise RuntimeError("no evaluation was asked for")
        with self.replica.shown():
            metrics = self.evaluation.run(self._connected, self.watch.waiting)
        self.watch.exclude(began_s)
        return m.Evaluated(command.view, metrics)

    def _told(self, report: Report) -> Report:
        """With what only the shell knows."""
        chunks, moved_bytes = self.chunks.held.chunks, self.chunks.take_moved_bytes()
        return replace(report, wire_bytes=self._take_sent(), chunks=chunks, moved_bytes=moved_bytes)

    def _arrive(self, report: Report) -> m.Event:
        self.watch.work_ends()
        if report.broken:
            self._leave()
        if report.rounds:
            self._told_row = report.rounds[-1]
        order = self._link.arrive(report)
        self.watch.exclude_s(order.paused_s)
        return m.Ordered(order)

    def _take_sent(self) -> int:
        sent, self._sent_bytes = self._sent_bytes, 0
        return sent

    @property
    def _connected(self) -> Transport:
        if self._transport is None:
            raise TransportError("the view was left")
        return self._transport

    @property
    def _reducing(self) -> Reduction:
        if self._reduction is None:
            raise RuntimeError("the loop has not begun")
        return self._reduction

    def log(self, values: dict[str, float | int | str]) -> None:
        """The user's own values, with where they come from."""
        self._link.log({"worker": self.place.worker, "round": self.state.round, **values})

    def beat(self) -> Beat:
        """A sign of life; from any thread."""
        member = self.member
        view = member.order.view.number if member.order else 0
        return Beat(self.place.worker, view, member.round_s, self.watch.waits_s)

    def status(self) -> TrainingStatus | None:
        """Where training is, for live progress; from any thread."""
        member = self.member
        row = member.rounds[-1] if member.rounds else self._told_row
        return status_of(member, self.epochs, self.stepper.epoch_samples, row)

    def close(self) -> None:
        """Leave the view, so that others notice at once, and finish writing."""
        self._leave()
        self._courier.close()
        self._writer.close()


def _extent_of(state: Replicated, program: Program, control: Control) -> Extent:
    return extent(state, control, program)
