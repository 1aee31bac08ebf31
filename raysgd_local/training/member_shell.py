"""The shell around a member: it carries out the member's commands, measures them, and feeds back their outcomes.

It decides nothing: every branch here is about *how* to carry out a command. Real processes and the random search run
this same code, over a replica of tensors or of numbers (`ReplicaPort`).
"""

from __future__ import annotations

import queue
from collections import deque

from raysgd_local.control.member import events as m
from raysgd_local.control.member import machine
from raysgd_local.control.member.free_steps import Allowance
from raysgd_local.control.messages import Beat, Order, Report
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.records import replace_fields
from raysgd_local.training.collective_commands import CollectiveCommands
from raysgd_local.training.ports import ControllerPort, Released
from raysgd_local.training.replica_port import ReplicaPort
from raysgd_local.training.stopwatch import Stopwatch


class MemberShell:
    """Runs one member. All methods but `post` and `beat` belong to the training thread."""

    def __init__(self, worker: str, port: ReplicaPort, link: ControllerPort, watch: Stopwatch) -> None:
        self.member = machine.Member(worker)
        self.watch = watch
        self.steps = self.epochs = 0
        self._undone = 0  # number of probes undone
        self._collectives = CollectiveCommands(port, watch)
        self._replica_port, self._link = port, link
        self._inbox: queue.SimpleQueue[m.Event] = queue.SimpleQueue()
        self._allowance = Allowance()
        self._announced = 0  # newest view whose first round was announced to the controller
        self._told_row: RoundRow | None = None  # newest round reported to the controller

    @property
    def order(self) -> Order:
        return self.member.in_force

    @property
    def state(self) -> Replicated:
        return self.member.known

    @property
    def rewound(self) -> int:
        """How often the loop was put back to batches that it had already been given."""
        return self._undone + self._collectives.healed

    def post(self, event: m.Event) -> None:
        """Take an event from outside the training thread. The member hears of it at the loop's next call."""
        if isinstance(event, m.Cut):
            self._replica_port.cut(event.view)
        self._inbox.put(event)

    def step(self, due: m.StepDue) -> None:
        """Take a step of the loop, whose gradients are ready."""
        self.steps += 1
        if self._allowance.free and self._inbox.empty():
            pending = self.member.samples + self._allowance.take(due)
            self._replica_port.local_step(m.LocalStep(pending, due.stepping), self.member.known)
        else:
            self.drive(due)

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
        """Carry out one command. Return its outcome, or None for a command without an answer."""
        match command:
            case m.LocalStep():
                self._replica_port.local_step(command, self.state)
            case m.Proceed(free):
                self._allowance.grant(free)
                self.watch.work_begins()
            case m.Mark() | m.Look() | m.ShowMean() | m.Undo():
                self._replica_port.probe(command)
                self._undone += isinstance(command, m.Undo)
            case m.Launch(exchange):
                self._collectives.launch(exchange, self.member)
            case m.Commit():
                self._commit(command)
            case m.CopyState(save):
                self._replica_port.save(save, self.member.rank)
            case m.Arrive(report):
                return self._arrive(report)
            case m.Exit(why):
                raise Released(why)
            case _:
                return self._collectives.carry_out(command, self.member)
        return None

    def _commit(self, command: m.Commit) -> None:
        self._replica_port.commit(command, self.state)
        view, round = self.order.view.number, self.state.round
        if self._announced != view:
            self._announced = view
            self._link.formed(view, round, self.steps)
        self._replica_port.committed(view, round)

    def _arrive(self, report: Report) -> m.Event:
        report = replace_fields(self._replica_port.with_holdings(report), wire_bytes=self._collectives.take_sent())
        self.watch.work_ends()
        if report.broken:
            self._replica_port.leave()
        if report.rounds:
            self._told_row = report.rounds[-1]
        order = self._link.arrive(report)
        self.watch.exclude_s(order.paused_s)
        return m.Ordered(order)

    def beat(self) -> Beat:
        """Return this worker's heartbeat. May be called from any thread."""
        member = self.member
        view = member.order.view.number if member.order else 0
        return Beat(member.worker, view, member.round_s, self.watch.waits_s, self._collectives.evaluating)
