"""The invariants at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raysgd_local.control.controller.events import Finish
from raysgd_local.control.controller.state import Controller
from raysgd_local.control.messages import worker_number
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.faults.language import Fault
from raysgd_local.simulation.engine.loop import LoopPlan
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
    """Assert invariant 9: a run ends for a reason, and without faults it finishes and loses no worker."""
    fired: set[str] = {fault.kind for fault in faults}
    plan = scenario.loop
    calm = _calm(scenario, pace.longest_step_s)
    slow = [worker for worker in lost if pace.longest_stretch_s(worker) >= _patience_s(scenario)]
    needs: dict[str, set[str]] = {"failed": {"error", "nan"}, "interrupted": {"interrupt"}, "lost": set(fired)}
    ends = bool(plan.exits) or plan.crashes  # loops end their processes, of which one may have had the only model
    own = {"failed": plan.differs() or ends, "lost": ends}.get(finish.status)
    if finish.status in needs and not (own or needs[finish.status] & fired) and (calm or finish.status != "lost"):
        violated("9: every run ends for a reason", f"{finish} after {sorted(fired)}")
    # A worker that leaves in time is not lost. One whose steps alone exceed the straggler's limit is lost for a reason.
    if calm and fired <= {"sigterm"} and not plan.crashes and end.workers_lost > len(slow):
        violated("nobody is given up for nothing", f"{end.workers_lost} workers lost")
    state = end.books.replicated if end.books else None
    over = state is not None and (state.stopped or state.epoch == plan.epochs or _all_quit(plan, end))
    if finish.status == "finished" and not over:
        violated("9: every run ends for a reason", f"{finish} at {state}")
    if finish.status == "finished" and state is not None and not fired and _goes_on_after_stop(plan, state):
        violated("a stop that all ask for between epochs is the end", f"epoch {state.epoch}, open: {state.open}")
    newest = end.saves.published[-1].replicated.progress if end.saves.published else None
    if finish.status == "finished" and state is not None and newest != state.progress:
        violated("9: what a finished run learnt is in a checkpoint", f"{state.progress}, the newest has {newest}")


def _goes_on_after_stop(plan: LoopPlan, state: Replicated) -> bool:
    """Whether another epoch was opened after all loops had asked to stop."""
    opened = state.open and not state.epochs  # where rounds go across epochs, the next one is open already
    return 0 < plan.stop_epoch <= state.epoch and (opened or state.epoch > plan.stop_epoch)


def _all_quit(plan: LoopPlan, end: Controller) -> bool:
    """Whether all members' loops ended before the last epoch, as planned."""
    numbers = {worker_number(worker) for worker in end.view.members} if end.view else set()
    return numbers <= set(plan.quits) and end.books is not None and end.books.replicated.epoch >= plan.quits_after


def _calm(scenario: Scenario, longest_step_s: float) -> bool:
    """Whether no time-out can expire without a fault: no message is seconds late, no step exceeds a limit."""
    prompt = scenario.noise.delay_s * 100 < 2 and scenario.cluster.startup_s < 10
    return prompt and longest_step_s < _patience_s(scenario)


def _patience_s(scenario: Scenario) -> float:
    """Return the shortest time for which members wait for others."""
    limits = scenario.settings.timeouts
    return min(limits.arrival.floor_s, limits.straggler.floor_s)
