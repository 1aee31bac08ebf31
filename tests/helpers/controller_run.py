"""A controller in a test's hands."""

from __future__ import annotations

from dataclasses import replace

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.controller import events as c
from raysgd_local.control.controller import machine as controller
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.controller.state import begin
from raysgd_local.control.messages import LoopPosition, Report
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.round_row import RoundRow


class Run:
    """A controller and everything that it has said."""

    def __init__(self, workers_min=1, workers_max=2, resume=None, across_epochs=False, **settings):
        program = Program(FixedPeriod(2), across_epochs=across_epochs)
        self.state = begin(Settings(program, workers_min, workers_max, **settings), resume)
        self.now = 0.0
        self.said = []
        self.tell(c.RunStarted())

    def tell(self, *events):
        """The commands that these events bring."""
        began = len(self.said)
        for event in events:
            self.now += 0.1
            self.state, commands = controller.advance(self.state, event, self.now)
            self.said += commands
        return self.said[began:]

    def up(self, *workers, epochs=0):
        for worker in workers:
            self.tell(c.WorkerUp(worker, f"node-{worker}", 1))
            self.tell(c.Arrived(Report(worker, 0, 0, LoopPosition.START, epochs=epochs)))

    def order(self):
        return [command for command in self.said if isinstance(command, c.Form)][-1].order

    def report(self, worker, place, order, **changes):
        state = replace(order.replicated, **changes.pop("state", {}))
        return Report(worker, order.view.number, order.segment, place, state, **changes)

    def arrive(self, worker, place=LoopPosition.TRAINING, **changes):
        self.tell(c.Arrived(self.report(worker, place, self.order(), **changes)))


def started(workers_max=2, samples=8, epochs=1, **settings):
    """A run with all workers in an open epoch over `samples` samples."""
    run = Run(workers_max=workers_max, **settings)
    workers = [f"w{i}" for i in range(workers_max)]
    run.up(*workers)
    for worker in workers:
        run.arrive(worker, LoopPosition.OPENING, samples=samples, epochs=epochs)
    return run


def row(round):
    return RoundRow(round, 1, 1, 2, 2, "global", 4, 4, 0, 1.0, 0.1, 0.1, 0.0, 0, 1.0, 0.1)
