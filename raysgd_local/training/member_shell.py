"""The shell around a member: carries out its commands, measures, and feeds back their outcomes.

It decides nothing: every branch here is about *how* a command is done. Real processes and the random search run this
same code, over a replica of tensors or of numbers (`ReplicaPort`).
"""

from __future__ import annotations

import queue
from collections import deque
from dataclasses import replace
from typing import assert_never

from raysgd_local.control.control_slots import Contribution
from raysgd_local.control.member import events as m
from raysgd_local.control.member import machine
from raysgd_local.control.member.free_steps import Allowance
from raysgd_local.control.messages import Beat, Order, Report
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.errors import CheckpointError, TransportError
from raysgd_local.records import RoundRow
from raysgd_local.training.ports import ControllerPort, Released
from raysgd_local.training.replica_port import ReplicaPort
from raysgd_local.training.stopwatch import Stopwatch


class MemberShell:
    """Runs one member. All methods but `post` and `beat` belong to the training thread."""

    def __init__(self, worker: str, port: ReplicaPort, link: ControllerPort, watch: Stopwatch) -> None:
        self.member = machine.Member(worker)
        self.watch = watch
        self.steps = self.epochs = 0
        self.rewound = 0  # times that the loop was put back to batches that it had been given
        self._replica_port, self._link = port, link
        self._inbox: queue.SimpleQueue[m.Event] = queue.SimpleQueue()
        self._allowance = Allowance()
        self._sent_bytes = 0  # not reported yet
        self._announced = 0  # newest view that the controller knows to have formed
        self._told_row: RoundRow | None = None  # newest round that the controller knows

    @property
    def order(self) -> Order:
        return self.member.in_force

    @property
    def state(self) -> Replicated:
        return self.member.known

    def post(self, event: m.Event) -> None:
        """Take an event from outside the training thread. The member hears of it at the loop's next call."""
        if isinstance(event, m.Cut):
            self._replica_port.cut(event.view)
        self._inbox.put(event)

    def step(self, samples: int, consumed: int) -> None:
        """Gradients are ready, over `samples` samples and `consumed` positions of the deal."""
        self.steps += 1
        if self._allowance.free and self._inbox.empty():
            pending = self.member.samples + self._allowance.take(samples, consumed)
            self._replica_port.local_step(pending, self.member.known)
        else:
            self.drive(m.StepDue(samples, consumed))

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
        """Carry out one command; None where the member waits for no answer."""
        match command:
            case m.LocalStep(pending):
                self._replica_port.local_step(pending, self.state)
            case m.Proceed(free):
                self._allowance.grant(free)
                self.watch.work_begins()
            case m.Mark() | m.Look() | m.ShowMean() | m.Undo():
                self._replica_port.probe(command)
                self.rewound += isinstance(command, m.Undo)
            case m.Launch(exchange):
                self._replica_port.launch(exchange, self._measured(exchange.said), self.member)
            case m.Commit():
                self._commit(command)
            case m.CopyState(save):
                self._replica_port.save(save, self.member.rank)
            case m.Arrive(report):
                return self._arrive(report)
            case m.Exit(why):
                raise Released(why)
            case _:
                return self._await(command)
        return None

    def _await(self, command: m.Awaited) -> m.Event:
        """Carry out a command that may fail; if it does, this member is in no view any more."""
        view = self.order.view.number
        try:
            return self._outcome(command, view)
        except TransportError as error:
            self._replica_port.leave()
            return m.Failed(view, str(error))

    def _outcome(self, command: m.Awaited, view: int) -> m.Event:
        match command:
            case m.Exchange():
                return self._exchange(command)
            case m.Collect():
                return self._collect(view)
            case m.AverageProbe():
                return self._average_probe(command)
            case m.Evaluate():
                return self._evaluate(command)
            case m.Restore(name):
                return self._restore(name, view)
            case _:
                self.watch.work_ends()
                with self.watch.waiting():
                    self._enter(command)
                return m.Done(view)

    def _enter(self, command: m.Connect | m.Heal | m.Transfer | m.Align | m.Fetch) -> None:
        """One part of entering a view."""
        port = self._replica_port
        match command:
            case m.Connect():
                port.connect(command, self.order)
            case m.Heal(_, behind):
                port.heal(command, self.state)
                self.rewound += behind
            case m.Transfer():
                port.transfer(command)
            case m.Align():
                port.align(command)
            case m.Fetch():
                port.fetch(self.member)
            case _:
                assert_never(command)

    def _restore(self, name: str, view: int) -> m.Event:
        try:
            self._replica_port.restore(name, self.member)
        except CheckpointError as error:
            self._replica_port.leave()
            return m.Failed(view, str(error), damaged=name)
        return m.Done(view)

    def _exchange(self, command: m.Exchange) -> m.Event:
        said = self._measured(command.said)
        began_s = self.watch.now()
        with self.watch.waiting():
            result = self._replica_port.exchange(command, said, self.member)
        self._sent_bytes = result.sent_bytes
        exchange_s = self.watch.now() - began_s
        return m.Exchanged(command.view, result.control, exchange_s, self._replica_port.finite())

    def _collect(self, view: int) -> m.Event:
        self.watch.work_ends()
        began_s = self.watch.now()
        with self.watch.waiting():
            result = self._replica_port.collect()
        self._sent_bytes = result.sent_bytes
        return m.Exchanged(view, result.control, self.watch.now() - began_s, self._replica_port.finite())

    def _average_probe(self, command: m.AverageProbe) -> m.Event:
        self.watch.work_ends()
        with self.watch.waiting():
            result = self._replica_port.average_probe(command)
        self._sent_bytes += result.sent_bytes
        return m.Averaged(command.view, result.control)

    def _evaluate(self, command: m.Evaluate) -> m.Event:
        self.watch.work_ends()
        began_s = self.watch.now()
        metrics = self._replica_port.evaluate(command, self.watch.waiting)
        self.watch.exclude(began_s)
        return m.Evaluated(command.view, metrics)

    def _measured(self, said: Contribution) -> Contribution:
        self._replica_port.finish_steps(said, self.state)
        compute_s, clock_s = self.watch.exchange_begins()
        described = self._replica_port.describe(said, self.state)
        return replace(described, compute_s=compute_s, clock_s=clock_s, wire_bytes=self._take_sent())

    def _commit(self, command: m.Commit) -> None:
        self._replica_port.commit(command, self.state)
        view, round = self.order.view.number, self.state.round
        if self._announced != view:
            self._announced = view
            self._link.formed(view, round, self.steps)
        self._replica_port.committed(view, round)

    def _arrive(self, report: Report) -> m.Event:
        report = replace(self._replica_port.with_holdings(report), wire_bytes=self._take_sent())
        self.watch.work_ends()
        if report.broken:
            self._replica_port.leave()
        if report.rounds:
            self._told_row = report.rounds[-1]
        order = self._link.arrive(report)
        self.watch.exclude_s(order.paused_s)
        return m.Ordered(order)

    def _take_sent(self) -> int:
        sent, self._sent_bytes = self._sent_bytes, 0
        return sent

    def beat(self) -> Beat:
        """A sign of life; from any thread."""
        member = self.member
        view = member.order.view.number if member.order else 0
        return Beat(member.worker, view, member.round_s, self.watch.waits_s)
