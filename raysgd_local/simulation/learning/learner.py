"""A worker that really trains, in virtual time: the same shell, context and loop as in a real process.

Each worker runs in a greenlet until it would wait (for a step to be computed, for others, for an order); then the fleet
goes on. So one process holds hundreds of workers, and the same seed gives the same run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from greenlet import GreenletExit, getcurrent, greenlet

from raysgd_local.control.controller.events import UserError, WorkerUp
from raysgd_local.control.member import events as m
from raysgd_local.control.messages import Order
from raysgd_local.errors import InputError
from raysgd_local.simulation.engine.connection import Connection
from raysgd_local.simulation.engine.controller_link import VirtualClock, VirtualLink
from raysgd_local.simulation.engine.network import Call
from raysgd_local.simulation.engine.world import World
from raysgd_local.simulation.learning.courier import VirtualCourier
from raysgd_local.simulation.learning.virtual import VirtualNetwork, VirtualWriter
from raysgd_local.training.context import TrainContext
from raysgd_local.training.current import present, run_loop
from raysgd_local.training.fault_hooks import Interference
from raysgd_local.training.ports import Released
from raysgd_local.training.replica.replica import Replica
from raysgd_local.training.replica.rng import generators, set_generators
from raysgd_local.training.shell import Shell
from raysgd_local.training.user_traceback import own_traceback
from raysgd_local.training.worker_setup import WorkerSetup


@dataclass(frozen=True)
class Lesson:
    """The inputs of every worker."""

    loop: Any  # a task, or a function that is called with `config`
    config: dict[str, Any] | None
    seed: int  # of torch's global generator
    place: Callable[[str], WorkerSetup]  # from a worker's name
    beat_s: float = 0.25  # time between heartbeats
    collective_timeout_s: float = 600.0
    generators: dict[str, Any] = field(default_factory=generators)  # each worker's global ones at start


class Learner:
    """One worker's process (see `engine.world.Process`)."""

    def __init__(self, name: str, node: str, world: World, lesson: Lesson, log: Callable[[dict[str, Any]], None]):
        self.name, self.node = name, node
        self._world, self._lesson = world, lesson
        self.alive, self.frozen, self.slow = True, False, 1.0
        self.spoiled = self.unwritten = self.hung = self._stands = False
        self.deferred: list[Callable[[], None]] = []
        self.connection = Connection(name, world.network, self._later, lesson.collective_timeout_s, self._settled)
        network = VirtualNetwork(self.connection, self._call_ended, lambda: self.shell.order.view.members)
        link = VirtualLink(name, world, self._next_order, log)
        writer = VirtualWriter(self, world, link, self._wait, self._go_on)
        self._courier = VirtualCourier(self._wait, self._go_on)
        self.shell = Shell(lesson.place(name), network, link, VirtualClock(world), writer, self._courier)
        self.shell.interference = VirtualSteps(self)
        self._orders: list[Order] = []
        self._settlements: list[tuple[Call, str]] = []
        self._awaits_order = False
        self._error = ""
        self._fleet = getcurrent()
        self._thread = greenlet(self._live, parent=self._fleet)
        self._generators = lesson.generators

    # Calls by the fleet.

    def start(self) -> None:
        self._world.tell(self.name, WorkerUp(self.name, self.node, 0))
        self._beat()
        self._world.after(self._world.io_s(), self, self._go_on)

    def post(self, event: m.Event) -> None:
        self.shell.post(event)

    def give(self, order: Order) -> None:
        self._orders.append(order)
        if self._awaits_order:
            self._awaits_order = False
            self._go_on()

    def raise_error(self, message: str) -> None:
        self._error = message

    def wake(self) -> None:
        self.hung, stood, self._stands = False, self._stands, False
        if stood:
            self._go_on()

    def die(self) -> None:
        self.connection.leave()
        self._courier.die()
        if self._thread:
            self._thread.throw(GreenletExit)

    # The process.

    def _live(self) -> None:
        """Run the loop, as `runtime.worker.TrainWorker.run` does."""
        ctx = TrainContext(self.shell)
        torch.manual_seed(self._lesson.seed)
        try:
            with present(ctx):
                run_loop(self._lesson.loop, self._lesson.config, ctx)
        except Released:
            pass
        except GreenletExit:
            return
        except (InputError, KeyboardInterrupt):
            raise  # the user's input can't work, or a second Ctrl-C: end the simulation, in the fleet's greenlet
        except BaseException as error:
            self._world.tell(self.name, UserError(self.name, own_traceback(error)))
        finally:
            self.shell.close()
        self._world.ended(self, "its loop ended")

    def _beat(self) -> None:
        self._world.beat(self.shell.beat())
        self._world.after(self._lesson.beat_s, self, self._beat)

    # Waiting.

    def _go_on(self) -> None:
        """Run this worker until it waits. Call it in the fleet's greenlet, which never uses global generators."""
        set_generators(self._generators)
        try:
            self._thread.switch()
        finally:
            self._generators = generators()

    def _wait(self) -> None:
        """Wait until the fleet calls `_go_on`. Call it in the worker's greenlet."""
        if not self.alive:
            raise GreenletExit
        self._fleet.switch()

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        self._world.after(delay_s, self, action)

    def _settled(self, call: Call, failure: str) -> None:
        self._settlements.append((call, failure))
        if self._courier.waits:
            self._courier.go_on()
        else:
            self._go_on()

    def _call_ended(self) -> tuple[Call, str]:
        """Wait for the end of a collective; return it with the reason of a failure."""
        if self._courier.runs:
            self._courier.wait()
        else:
            self._wait()
        call, failure = self._settlements.pop()
        return call, failure

    def _next_order(self) -> Order:
        if not self._orders:
            self._awaits_order = True
            self._wait()
        return self._orders.pop(0)

    def compute(self, replica: Replica) -> None:
        """Let a step's time pass. Faults in user code happen here."""
        self._world.after(self._world.step_s(self), self, self._go_on)
        self._wait()
        if self.hung:
            self._stands = True
            self._wait()
        if self._error:
            raise RuntimeError(self._error)
        if self.spoiled:
            self.spoiled = False
            for prepared in replica.optimizers:
                for parameter in prepared.parameters():
                    parameter.grad = torch.full_like(parameter, math.nan)

    def committed(self, view: int, round: int) -> None:
        self._world.committed(self, view, round)


class VirtualSteps(Interference):
    """Hooks that let each step take virtual time."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def before_step(self, replica: Replica) -> None:
        self._learner.compute(replica)

    def committed(self, view: int, round: int) -> None:
        self._learner.committed(view, round)
