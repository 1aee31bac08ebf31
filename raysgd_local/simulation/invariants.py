"""What must hold whatever happens: how it is told where it does not, and what the end of a run must be like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from raysgd_local.control.controller_events import Finish
from raysgd_local.control.controller_state import Controller
from raysgd_local.faults import Fault
from raysgd_local.simulation.step_times import Pareto

if TYPE_CHECKING:
    from raysgd_local.simulation.scenario import Scenario


class Violated(Exception):  # noqa: N818 - what happened, not what went wrong with us
    """An invariant does not hold."""


def violated(invariant: str, what: str) -> NoReturn:
    """Raises `Violated`."""
    raise Violated(f"{invariant}: {what}")


def judge(finish: Finish, faults: Sequence[Fault], end: Controller, scenario: Scenario) -> None:
    """Invariant 9: a run ends for a reason, and where nothing went wrong it finishes and loses nobody."""
    fired: set[str] = {fault.kind for fault in faults}
    # With words that are late by seconds time-outs pass without a fault.
    calm = scenario.noise.delay_s * 100 < 2 and scenario.cluster.startup_s < 10
    # A step with a heavy tail may take longer than the patience with a straggler.
    calm = calm and not (isinstance(scenario.cluster.steps, Pareto) and scenario.cluster.steps.mean_s >= 0.5)
    needs: dict[str, set[str]] = {"failed": {"error", "nan"}, "interrupted": {"interrupt"}, "lost": set(fired)}
    if finish.status in needs and not needs[finish.status] & fired and (calm or finish.status != "lost"):
        violated("9: every run ends for a reason", f"{finish} after {sorted(fired)}")
    if calm and fired <= {"sigterm"} and end.losses:  # who leaves in time is no loss
        violated("nobody is given up for nothing", f"{end.losses} workers lost")
    state = end.books.replicated if end.books else None
    over = state is not None and (state.stopped or state.epoch == scenario.loop.epochs)
    if finish.status == "finished" and not over:
        violated("9: every run ends for a reason", f"{finish} at {state}")
