"""Only time: thousands of workers in lockstep, without learning and without faults.

Where nobody fails all members of a view decide alike, from the same reduced values. So one real member stands for
all, under the real controller; what differs between workers, how long they compute, is drawn for each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from raysgd_local.control import controller
from raysgd_local.control import controller_events as c
from raysgd_local.control import member as machine
from raysgd_local.control import member_events as m
from raysgd_local.control.controller_state import begin
from raysgd_local.control.exchange import SLOT, Contribution, Control
from raysgd_local.control.program import Program
from raysgd_local.control.protocol import Order, Report
from raysgd_local.control.settings import CheckpointPolicy, Settings
from raysgd_local.records import RoundRow
from raysgd_local.simulation.cluster_model import ClusterModel
from raysgd_local.simulation.step_times import Floats


@dataclass(frozen=True)
class TimingPlan:
    """`steps` optimizer steps on each of `workers` workers; `state_bytes` is what an averaging reduces.

    The loss is 1 in the first round and falls with the steps, to half after `half_loss_steps` of one worker.
    """

    program: Program
    workers: int
    cluster: ClusterModel = field(default_factory=ClusterModel)
    state_bytes: int = 4_000_000
    steps: int = 1000
    batch_size: int = 32
    half_loss_steps: float = 1000.0
    seed: int = 0


def simulate_timing(plan: TimingPlan) -> tuple[RoundRow, ...]:
    """The rows of `rounds.csv` that such a run would write, times virtual."""
    fleet = _Lockstep(plan)
    fleet.run()
    return tuple(fleet.rows)


class _Lockstep:
    """All members as one; `ready` says when each began its newest exchange, `now` is the time of all."""

    def __init__(self, plan: TimingPlan) -> None:
        self._plan = plan
        self._random = np.random.default_rng(plan.seed)
        settings = Settings(
            plan.program, plan.workers, plan.workers, checkpoints=CheckpointPolicy(every_epochs=None)
        )
        self._controller = begin(settings)
        self._member = machine.Member("w0")
        self._events: deque[m.Event] = deque()
        self._speeds = np.array([plan.cluster.speed(number) for number in range(plan.workers)])
        self._began = np.zeros(plan.workers)
        self._since_step = 0
        self._sent_bytes = 0
        self.now = 0.0
        self.rows: list[RoundRow] = []
        self.over = False

    def run(self) -> None:
        """From the request of workers to the end."""
        self._tell(c.RunStarted())
        self.now += self._plan.cluster.startup_s
        for number in range(self._plan.workers):
            self._tell(c.WorkerUp(f"w{number}", f"n{number}", number))
        for event in self._loop():
            self._events.append(event)
            while self._events and not self.over:
                self._member, commands = machine.advance(self._member, self._events.popleft(), self.now)
                for command in commands:
                    self._run(command)

    def _loop(self) -> Iterator[m.Event]:
        yield m.LoopStarted()
        self._began[:] = self.now
        yield m.EpochWanted(0)
        for _ in range(self._plan.steps):
            if self._member.known.stopped:
                break
            yield m.StepDue(self._plan.batch_size, 0)
        yield m.EpochLeft()
        yield m.LoopFinished()

    def _tell(self, event: c.Event) -> None:
        self._controller, commands = controller.advance(self._controller, event, self.now)
        for command in commands:
            match command:
                case c.Form(order):
                    self._obey(order)
                case c.RecordRounds(rounds):
                    self.rows += rounds
                case c.Finish():
                    self.over = True
                case _:
                    pass  # nobody dies, so no timer matters; nothing is written

    def _obey(self, order: Order) -> None:
        self.now += self._plan.cluster.latency_s
        self._events.append(m.Ordered(order))

    def _run(self, command: m.Command) -> None:
        cluster, workers = self._plan.cluster, self._plan.workers
        match command:
            case m.Arrive(report):
                self._arrive(report)
            case m.Exchange():
                self._exchange(command)
            case m.Connect(view):
                self.now += cluster.latency_s
                self._events.append(m.Done(view))
            case m.Transfer() | m.Heal() | m.Align():
                self.now += cluster.broadcast_s(self._plan.state_bytes, workers)
                self._events.append(m.Done(self._member.in_force.view.number))
            case _:
                pass  # a local step is part of the round's time

    def _arrive(self, report: Report) -> None:
        self.now += self._plan.cluster.latency_s
        for number in range(self._plan.workers):
            sent = self._sent_bytes if number else 0
            self._tell(c.Arrived(replace(report, worker=f"w{number}", wire_bytes=sent)))
        self._sent_bytes = 0

    def _exchange(self, command: m.Exchange) -> None:
        """All compute, the last to come begins the reduction."""
        steps, size = command.said.steps, self._plan.state_bytes + 4 * SLOT * self._plan.workers
        compute = (
            self._plan.cluster.steps.draw(self._random, (self._plan.workers, steps)).sum(axis=1) / self._speeds
        )
        began = self.now + compute  # (workers,)
        self.now = float(began.max()) + self._plan.cluster.reduction_s(size, self._plan.workers)
        control = self._control(command.said, compute, began - self._began)
        self._began = began
        self._sent_bytes = 2 * size * (self._plan.workers - 1) // self._plan.workers
        exchange_s = self.now - float(began[0])
        self._events.append(m.Exchanged(command.view, control, exchange_s))

    def _control(self, said: Contribution, compute: Floats, clock: Floats) -> Control:
        done = self._member.known.steps / self._plan.workers
        loss_sum = said.samples * 0.5 ** (done / self._plan.half_loss_steps)
        said = replace(said, loss_sum=loss_sum, lr=1.0, wire_bytes=self._sent_bytes)
        fixed = (said.weight, said.loss_sum, said.steps, said.samples, said.consumed)
        return Control(
            tuple(
                Contribution(
                    *fixed, compute_s=a, clock_s=b, lr=said.lr, wire_bytes=said.wire_bytes, flags=said.flags
                )
                for a, b in zip(compute.tolist(), clock.tolist(), strict=True)
            )
        )
