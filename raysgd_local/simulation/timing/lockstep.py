"""Simulate times only: thousands of workers in lockstep, without learning and without faults.

Without failures all members of a view decide alike, from the same reduced values. So one real member represents all,
under the real controller. Only computing times differ between workers: they are drawn for each.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import assert_never

from raysgd_local.control.controller import events as c
from raysgd_local.control.controller import machine as controller
from raysgd_local.control.controller.settings import CheckpointPolicy, Settings
from raysgd_local.control.controller.state import begin
from raysgd_local.control.member import events as m
from raysgd_local.control.member import machine
from raysgd_local.control.messages import Order, Report, worker_name
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.simulation.engine.interruption import interruptible
from raysgd_local.simulation.engine.loop import Batch, Exit, NoSample, training_loop
from raysgd_local.simulation.engine.world import FleetObserver
from raysgd_local.simulation.timing.plan import TimedRun, TimingPlan
from raysgd_local.simulation.timing.reductions import Reductions


def simulate_timing(plan: TimingPlan, observer: FleetObserver | None = None) -> TimedRun:
    """Run to the end. `observer` follows the rounds and events. Ctrl-C ends the run after a round."""
    fleet = _Lockstep(plan, observer or FleetObserver())
    with interruptible(fleet.interrupt):
        finish = fleet.run()
    return TimedRun(tuple(fleet.rows), finish, fleet.now, fleet.controller.books)


class _Lockstep:
    """One member that represents all. `now` is the virtual time of all."""

    name = "w0"

    def __init__(self, plan: TimingPlan, observer: FleetObserver) -> None:
        self._plan, self._observer = plan, observer
        settings = Settings(
            plan.program,
            plan.workers,
            plan.workers,
            seed=plan.seed,
            checkpoints=CheckpointPolicy(every_epochs=None, last=False),
        )
        self.controller = begin(settings)
        self.member = machine.Member(self.name)
        self.steps = self.undone = 0
        self._events: deque[m.Event] = deque()
        self._reductions = Reductions(plan)
        self._finish: c.Finish | None = None
        self._started = self._interrupted = False
        self.now = 0.0
        self.rows: list[RoundRow] = []

    def run(self) -> c.Finish:
        """Run to the end."""
        self._tell(c.RunStarted())
        self.now += self._plan.cluster.startup_s
        for number in range(self._plan.workers):
            self._tell(c.WorkerUp(worker_name(number), self._node(number), number))
        for ask in training_loop(self._plan.loop, self):
            if self._finish is not None:
                return self._finish
            if isinstance(ask, Batch):
                self.steps += 1
                continue
            if isinstance(ask, Exit | NoSample):
                raise RuntimeError("a loop that ends its process, or reads a stream, has no forecast")
            if self._interrupted:
                self._interrupted = False
                self._tell(c.StopRequested("interrupted"))
            if isinstance(ask, m.EpochWanted) and not self._started:
                self._started = True
                self._reductions.start(self.now)
                self.now += self._plan.cluster.warmup_s
            self.post(ask)
            self._pump()
        if self._finish is None:
            raise RuntimeError("the loop is over and the run is not")
        return self._finish

    def interrupt(self) -> None:
        """Ask the run to end. A signal handler may call this."""
        self._interrupted = True

    def _node(self, number: int) -> str:
        nodes = self._plan.cluster.nodes
        return f"n{number // nodes.workers if nodes is not None else number}"

    def post(self, event: m.Event) -> None:
        """Queue an event for the member."""
        self._events.append(event)

    def _pump(self) -> None:
        while self._events and self._finish is None:
            self.member, commands = machine.advance(self.member, self._events.popleft())
            for command in commands:
                self._run(command)

    def _tell(self, event: c.Event) -> None:
        self.controller, commands = controller.advance(self.controller, event, self.now)
        for command in commands:
            match command:
                case c.Form(order):
                    self._obey(order)
                case c.Yield(view, segment):
                    self.post(m.YieldAsked(view, segment))
                case c.RecordRounds(rounds):
                    self.rows += rounds
                    self._observer.recorded(command)
                case c.RecordEvent():
                    self._observer.event(command, self.now)
                case c.Finish():
                    self._finish = command
                case c.RequestWorker() | c.KillWorker() | c.CutView() | c.SetTimer():
                    pass  # all workers start at once and none dies, so no timer matters
                case c.RewindTables() | c.PublishManifest() | c.DeleteCheckpoint():
                    pass  # no checkpoint is taken
                case _:
                    assert_never(command)

    def _obey(self, order: Order) -> None:
        self.now += self._plan.cluster.latency_s
        self._events.append(m.Ordered(order))

    def _run(self, command: m.Command) -> None:
        cluster, workers = self._plan.cluster, self._plan.workers
        match command:
            case m.Arrive(report):
                self._arrive(report)
            case m.Exchange():
                self._begin(command)
                self._collect(0)
            case m.Launch(exchange):
                self._begin(exchange)
            case m.Collect():
                self._collect(self.member.steps)
            case m.Commit():
                self._commit()
            case m.Connect(view):
                self.now += cluster.latency_s
                self._events.append(m.Done(view))
            case m.Transfer() | m.Heal() | m.Align():
                self.now += cluster.broadcast_s(self._plan.state_bytes, workers)
                self._events.append(m.Done(self.member.in_force.view.number))
            case m.Exit():
                self._leave()
            case m.LocalStep() | m.Proceed():
                pass  # a local step is part of the round's time
            case m.AverageProbe() | m.Mark() | m.Look() | m.ShowMean() | m.Undo():
                raise RuntimeError("programs with probes are refused")
            case m.Evaluate() | m.Restore() | m.Fetch() | m.Measure() | m.CopyState():
                raise RuntimeError(
                    "no loop here evaluates, and no run has checkpoints or data of its workers' own"
                )
            case _:
                assert_never(command)

    def _begin(self, exchange: m.Exchange) -> None:
        self._reductions.begin(exchange, self.member.known, self.now)

    def _collect(self, steps: int) -> None:
        exchanged, self.now = self._reductions.collect(steps)
        self._events.append(exchanged)

    def _commit(self) -> None:
        self.now += self._plan.cluster.round_s
        if not self.controller.formed:
            state = self.member.known
            self._tell(c.Progress(self.name, self.member.in_force.view.number, state.round, state.steps))

    def _leave(self) -> None:
        for number in range(self._plan.workers):
            self._tell(c.Died(worker_name(number), "its loop ended"))

    def _arrive(self, report: Report) -> None:
        """Let all members arrive. Only the first report has the rounds."""
        self.now += self._plan.cluster.latency_s
        told = replace(report, wire_bytes=self._reductions.sent_bytes)
        self._tell(c.Arrived(told))
        other = replace(told, rounds=(), changes=())
        for number in range(1, self._plan.workers):
            self._tell(c.Arrived(replace(other, worker=worker_name(number))))
        self._reductions.sent_bytes = 0
