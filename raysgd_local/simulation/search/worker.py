"""A worker in virtual time: the real member in the real shell, a simulated training loop, and a number for a model."""

from __future__ import annotations

import math
from collections.abc import Callable

from raysgd_local.clock import Clock
from raysgd_local.control.controller.events import UserError, WorkerUp
from raysgd_local.control.data.chunk_transfer import Held
from raysgd_local.control.member import events as m
from raysgd_local.control.member.state import Member
from raysgd_local.control.messages import Order, worker_number
from raysgd_local.simulation.engine.controller_link import VirtualClock, VirtualLink
from raysgd_local.simulation.engine.loop import Batch, Exit, NoSample, training_loop
from raysgd_local.simulation.engine.scenario import Scenario
from raysgd_local.simulation.engine.strand import Strand
from raysgd_local.simulation.engine.streams import StreamReader
from raysgd_local.simulation.engine.violation import violated
from raysgd_local.simulation.engine.world import World
from raysgd_local.simulation.search.invariants import InvariantChecker
from raysgd_local.simulation.search.model import NumberReplica
from raysgd_local.simulation.search.number_port import NumberPort
from raysgd_local.training.member_shell import MemberShell
from raysgd_local.training.ports import Released
from raysgd_local.training.stopwatch import Stopwatch

_ASKS = 10_000
"""A loop asks far less often than this while no time passes."""


class WholeTime(Stopwatch):
    """Counts training time from the run's beginning, evaluations included.

    The seeds that tests name were found with such times.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._told_at = 0.0

    def exclude(self, since: float) -> None:
        """Do nothing: only pauses are excluded."""


class SimulatedWorker:
    """One worker's process (see `engine.world.Process`)."""

    def __init__(self, name: str, node: str, world: World, checker: InvariantChecker, scenario: Scenario) -> None:
        self.name, self.node = name, node
        self._world, self._plan = world, scenario.loop
        self._beat_s = scenario.settings.timeouts.beat_s
        self.alive, self.frozen, self.slow = True, False, 1.0
        self.spoiled = self.unwritten = self.hung = self._stands = False
        self.deferred: list[Callable[[], None]] = []
        self.steps = 0
        self.heard = (0, 0)  # newest view and segment that it was asked to end
        self._orders: list[Order] = []
        self._awaits_order = False
        self._asked = (0.0, 0)  # when the loop asked for something, and how often before at the same time
        self._strand = Strand(self._live)
        stream = scenario.loop.stream
        self.reader = None if stream is None else StreamReader(stream, scenario.loop.batch_size)
        self._port = NumberPort(self, world, checker, scenario, self._strand)
        self.connection = self._port.connection
        link = VirtualLink(name, world, self._next_order, log=lambda _: None)
        self._shell = MemberShell(name, self._port, link, WholeTime(VirtualClock(world)))

    @property
    def member(self) -> Member:
        return self._shell.member

    @property
    def replica(self) -> NumberReplica:
        return self._port.replica

    @property
    def held(self) -> Held:
        return self._port.held

    @property
    def undone(self) -> int:
        return self._shell.rewound

    # Calls by the fleet.

    def start(self) -> None:
        self._world.tell(self.name, WorkerUp(self.name, self.node, worker_number(self.name)))
        self._beat()
        self._world.after(self._world.io_s(), self, self._strand.go_on)

    def _beat(self) -> None:
        self._world.beat(self._shell.beat())
        self._world.after(self._beat_s, self, self._beat)

    def post(self, event: m.Event) -> None:
        if isinstance(event, m.YieldAsked):
            self.heard = max(self.heard, (event.view, event.segment))
        self._shell.post(event)

    def give(self, order: Order) -> None:
        self._orders.append(order)
        if self._awaits_order:
            self._awaits_order = False
            self._strand.go_on()

    def wake(self) -> None:
        self.hung, stood, self._stands = False, self._stands, False
        if stood:
            self._strand.go_on()

    def raise_error(self, message: str) -> None:
        self._world.tell(self.name, UserError(self.name, message))
        self.connection.leave()
        self._world.ended(self, "its loop ended")
        self.unwind()

    def die(self) -> None:
        self.connection.leave()
        self.unwind()

    def unwind(self) -> None:
        """Free the process's greenlet."""
        self._strand.kill()

    # The process.

    def _live(self) -> None:
        why = "its loop ended"
        try:
            self._train()
        except Released as released:
            why = str(released)
        self.connection.leave()
        self._world.ended(self, why)

    def _train(self) -> None:
        self._stand_while_hung()
        for ask in training_loop(self._plan, self, self.reader):
            self._check_time_passes()
            match ask:
                case Batch():
                    self._compute(ask)
                case NoSample(taken):
                    self.replica.pass_over(taken)
                case Exit(killed):
                    self._exit(killed)
                    return
                case m.StepDue():
                    self._shell.step(ask)
                case _:
                    self._shell.drive(ask)
            self._stand_while_hung()

    def _check_time_passes(self) -> None:
        """Check that the loop does not ask again and again at one moment: then it would for ever."""
        self._asked = (
            (self._world.now, self._asked[1] + 1) if self._asked[0] == self._world.now else (self._world.now, 0)
        )
        if self._asked[1] > _ASKS:
            violated("9: every run ends", f"the loop of {self.name} asks for ever at {self._world.now:g} s")

    def _exit(self, killed: bool) -> None:
        """End the process from within the loop."""
        if not killed:
            self._world.tell(self.name, UserError(self.name, "SystemExit: nothing more to do"))

    def _stand_while_hung(self) -> None:
        if self.hung:
            self._stands = True
            self._strand.wait()

    def _compute(self, batch: Batch) -> None:
        self._world.after(self._world.step_s(self), self, self._strand.go_on)
        self._strand.wait()
        self.replica.compute(batch.taken)
        if self.spoiled:  # makes the averaged gradient, or the model after a step, not finite
            self.spoiled, self.replica.gradient = False, math.nan
        self.steps += 1

    def _next_order(self) -> Order:
        if not self._orders:
            self._awaits_order = True
            self._strand.wait()
        self._world.after(0.0, self, self._strand.go_on)
        order = self._orders.pop(0)
        self._strand.wait()
        return order
