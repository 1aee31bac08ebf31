"""What must hold whatever happens: how it is told where it does not, and what the end of a run must be like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raysgd_local.control.controller.events import Finish
from raysgd_local.control.controller.state import Controller
from raysgd_local.faults.language import Fault
from raysgd_local.simulation.engine.pace import StepPaces
from raysgd_local.simulation.engine.violation import violated

if TYPE_CHECKING:
    from raysgd_local.simulation.engine.scenario import Scenario


def judge(
    finish: Finish,
    faults: Sequence[Fault],
    end: Controller,
    scenario: Scenario,
    pace: StepPaces,
    lost: Sequence[str],
) -> None:
    """Invariant 9: a run ends for a reason, and where nothing went wrong it finishes and loses nobody."""
    fired: set[str] = {fault.kind for fault in faults}
    calm = _calm(scenario, pace.longest_step_s)
    slow = [worker for worker in lost if pace.longest_stretch_s(worker) >= _patience_s(scenario)]
    needs: dict[str, set[str]] = {"failed": {"error", "nan"}, "interrupted": {"interrupt"}, "lost": set(fired)}
    if finish.status in needs and not needs[finish.status] & fired and (calm or finish.status != "lost"):
        violated("9: every run ends for a reason", f"{finish} after {sorted(fired)}")
    # Who leaves in time is no loss; whose own steps alone outlast the straggler's limit was given up for something.
    if calm and fired <= {"sigterm"} and end.workers_lost > len(slow):
        violated("nobody is given up for nothing", f"{end.workers_lost} workers lost")
    state = end.books.replicated if end.books else None
    over = state is not None and (state.stopped or state.epoch == scenario.loop.epochs)
    if finish.status == "finished" and not over:
        violated("9: every run ends for a reason", f"{finish} at {state}")
    newest = end.saves.published[-1].replicated.progress if end.saves.published else None
    if finish.status == "finished" and state is not None and newest != state.progress:
        violated("9: what a finished run learnt is in a checkpoint", f"{state.progress}, the newest has {newest}")


def _calm(scenario: Scenario, longest_step_s: float) -> bool:
    """Whether no time-out can pass without a fault: no word is late by seconds, no step outlasts a limit of waiting."""
    prompt = scenario.noise.delay_s * 100 < 2 and scenario.cluster.startup_s < 10
    return prompt and longest_step_s < _patience_s(scenario)


def _patience_s(scenario: Scenario) -> float:
    """For how long others are waited for at least."""
    limits = scenario.settings.timeouts
    return min(limits.arrival.floor_s, limits.straggler.floor_s)
