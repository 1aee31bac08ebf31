"""A timing-only run's directory: what a run writes of its times, and nothing of what was not learned."""

from __future__ import annotations

import math
from dataclasses import replace

from raysgd_local.control.controller.events import RecordRounds
from raysgd_local.control.run_events import RunEvent
from raysgd_local.run_files.result import Names
from raysgd_local.run_files.storage import Storage
from raysgd_local.simulation.learning.recorder import Progress, Recorder
from raysgd_local.simulation.learning.simulate import Simulated
from raysgd_local.simulation.timing.lockstep import TimingPlan, simulate_timing


class TimeRecorder(Recorder):
    """The loss that schedules follow is assumed, so it is not written down."""

    def recorded(self, command: RecordRounds) -> None:
        rounds = tuple(replace(row, loss=math.nan) for row in command.rounds)
        super().recorded(replace(command, rounds=rounds))


def record_timing(plan: TimingPlan, storage: Storage, names: Names, progress: Progress) -> Simulated:
    """Run it, and write its directory: tables, events, result. There is no journal, model or checkpoint."""
    recorder = TimeRecorder(storage, progress)
    recorder.files.event(RunEvent.TIMING_ONLY, state_bytes=plan.state_bytes, loss=f"assumed: {plan.loss}")
    run = simulate_timing(plan, recorder)
    recorder.now = run.seconds
    return Simulated(run.finish, run.seconds, recorder.end(run.finish, run.books, names))
