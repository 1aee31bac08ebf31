"""Write the directory of a timing-only run: the usual tables and events, without losses, model and checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace

from raysgd_local.control.controller.events import RecordRounds
from raysgd_local.control.run_events import EventName
from raysgd_local.run_files.result import Names
from raysgd_local.run_files.storage import Storage
from raysgd_local.simulation.learning.recorder import Progress, Recorder
from raysgd_local.simulation.learning.simulate import Simulated
from raysgd_local.simulation.timing.lockstep import simulate_timing
from raysgd_local.simulation.timing.plan import TimingPlan


class TimeRecorder(Recorder):
    """A recorder that omits the loss from the tables: the loss that schedules follow is only assumed."""

    def recorded(self, command: RecordRounds) -> None:
        rounds = tuple(replace(row, loss=math.nan) for row in command.rounds)
        super().recorded(replace(command, rounds=rounds))


def record_timing(plan: TimingPlan, storage: Storage, names: Names, progress: Progress) -> Simulated:
    """Run the plan, and write tables, events and result. There is no journal, model or checkpoint."""
    recorder = TimeRecorder(storage, progress)
    recorder.files.event(EventName.TIMING_ONLY, state_bytes=plan.state_bytes, loss=f"assumed: {plan.loss}")
    run = simulate_timing(plan, recorder)
    recorder.now = run.seconds
    return Simulated(run.finish, run.seconds, recorder.end(run.finish, run.books, names))
