"""Carry out the commands that may fail (most are collectives), time them, and return their outcomes."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from raysgd_local.control.control_slots import Contribution
from raysgd_local.control.member import events as m
from raysgd_local.control.member.state import Member
from raysgd_local.control.messages import Evaluating
from raysgd_local.errors import CheckpointError, TransportError
from raysgd_local.records import replace_fields
from raysgd_local.training.replica_port import ExchangeResult, ReplicaPort
from raysgd_local.training.stopwatch import Stopwatch

_Entering = m.Connect | m.Heal | m.Transfer | m.Align | m.Fetch


class CollectiveCommands:
    """Carries out commands, and counts the bytes sent and how often this member was healed."""

    def __init__(self, port: ReplicaPort, watch: Stopwatch) -> None:
        self._port, self._watch = port, watch
        self._sent_bytes = 0  # bytes sent since the last report
        self._ahead_bytes = 0  # bytes sent for the coming round before its exchange
        self._said: Contribution | None = None  # this member's slot in the newest exchange
        self._evaluating: tuple[Evaluating, float] | None = None  # the present evaluation, and when it began
        self.healed = 0

    def carry_out(self, command: m.Awaited, member: Member) -> m.Event:
        """Carry out the command and return its outcome. If it fails, leave the view."""
        view = member.in_force.view.number
        try:
            return self._outcome(command, member, view)
        except TransportError as error:
            self._port.leave()
            return m.Failed(view, str(error))

    def _outcome(self, command: m.Awaited, member: Member, view: int) -> m.Event:
        match command:
            case m.Exchange():
                return self._exchange(command, member)
            case m.Collect():
                return self._collect(view)
            case m.AverageProbe():
                return self._average_probe(command)
            case m.Evaluate():
                return self._evaluate(command, member)
            case m.Restore(name):
                return self._restore(name, member, view)
            case m.Measure():
                self._watch.work_ends()
                self._port.measure(command)
                return m.Done(view)
            case _:
                self._watch.work_ends()
                with self._watch.waiting():
                    self._enter(command, member)
                return m.Done(view)

    def _enter(self, command: _Entering, member: Member) -> None:
        """Carry out a command of entering a view."""
        match command:
            case m.Connect():
                self._port.connect(command, member.in_force)
            case m.Heal(_, behind):
                self._port.heal(command, member.known)
                self.healed += behind
            case m.Transfer():
                self._port.transfer(command)
            case m.Align():
                self._port.align(command)
            case m.Fetch():
                self._port.fetch(member)
            case _:
                assert_never(command)

    def _restore(self, name: str, member: Member, view: int) -> m.Event:
        try:
            self._port.restore(name, member)
        except CheckpointError as error:
            self._port.leave()
            return m.Failed(view, str(error), damaged=name)
        return m.Done(view)

    def _exchange(self, command: m.Exchange, member: Member) -> m.Event:
        said = self._measured(command.said, member)
        began_s = self._watch.now()
        with self._watch.waiting():
            result = self._port.exchange(command, said, member)
        self._sent(result)
        return m.Exchanged(command.view, result.control, self._watch.now() - began_s, self._port.finite())

    def launch(self, command: m.Exchange, member: Member) -> None:
        """Begin an exchange; `Collect` ends it."""
        self._port.launch(command, self._measured(command.said, member), member)

    def _collect(self, view: int) -> m.Event:
        self._watch.work_ends()
        began_s = self._watch.now()
        with self._watch.waiting():
            result = self._port.collect()
        self._sent(result)
        return m.Exchanged(view, result.control, self._watch.now() - began_s, self._port.finite())

    def _average_probe(self, command: m.AverageProbe) -> m.Event:
        self._watch.work_ends()
        with self._watch.waiting():
            result = self._port.average_probe(command)
        self._ahead_bytes += result.sent_bytes
        return m.Averaged(command.view, result.control)

    def _evaluate(self, command: m.Evaluate, member: Member) -> m.Event:
        self._watch.work_ends()
        if command.control is not None:
            self._take_back()
        began_s = self._watch.now()
        self._evaluating = Evaluating(*member.known.progress), began_s
        try:
            metrics = self._port.evaluate(command, member.known, self._watch.waiting)
        finally:
            self._evaluating = None
        self._watch.exclude(began_s)
        return m.Evaluated(command.view, metrics)

    def _take_back(self) -> None:
        """Keep the measurements for the next round: the exchange that all came to was none."""
        said = self._said or Contribution()
        self._watch.take_back(said.compute_s, said.clock_s)
        self._ahead_bytes, self._sent_bytes = self._sent_bytes, said.wire_bytes

    def _sent(self, result: ExchangeResult) -> None:
        self._sent_bytes, self._ahead_bytes = result.sent_bytes + self._ahead_bytes, 0

    @property
    def evaluating(self) -> Evaluating | None:
        """The evaluation that this member takes part in. For any thread."""
        present = self._evaluating
        return None if present is None else replace(present[0], since_s=self._watch.now() - present[1])

    def _measured(self, said: Contribution, member: Member) -> Contribution:
        """Add this worker's measurements since the previous exchange."""
        self._port.finish_steps(said, member.known)
        compute_s, clock_s = self._watch.exchange_begins()
        said = self._port.describe(said, member.known)
        self._said = replace_fields(said, compute_s=compute_s, clock_s=clock_s, wire_bytes=self.take_sent())
        return self._said

    def take_sent(self) -> int:
        """Return the bytes sent since the last call."""
        sent, self._sent_bytes = self._sent_bytes, 0
        return sent
