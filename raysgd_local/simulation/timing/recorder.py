"""Record a simulation of times: tables, events and result, without a loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from raysgd_local.control.controller.events import RecordRounds
from raysgd_local.control.run_events import EventName
from raysgd_local.run_files.observer import RunObserver, RunStart
from raysgd_local.run_files.result import Names
from raysgd_local.run_files.storage import Storage
from raysgd_local.simulation.learning.recorder import Recorder
from raysgd_local.simulation.learning.simulate import Simulated
from raysgd_local.simulation.timing.lockstep import simulate_timing
from raysgd_local.simulation.timing.plan import TimingPlan


class TimeRecorder(Recorder):
    """Leaves out the loss, which is only assumed, for schedules to follow."""

    def recorded(self, command: RecordRounds) -> None:
        rounds = tuple(replace(row, loss=math.nan) for row in command.rounds)
        super().recorded(replace(command, rounds=rounds))


def record_timing(
    plan: TimingPlan, storage: Storage, start: RunStart, observers: Sequence[RunObserver]
) -> Simulated:
    """Run to the end, and write tables, events and result. There is no journal, model or checkpoint."""
    recorder = TimeRecorder(storage, observers)
    recorder.begin(start)
    recorder.note(EventName.TIMING_ONLY, state_bytes=plan.state_bytes, loss=f"assumed: {plan.loss}")
    run = simulate_timing(plan, recorder)
    recorder.now = run.seconds
    finish, content = recorder.end(run.finish, run.books, Names(start.method, start.task))
    return Simulated(finish, run.seconds, content)
