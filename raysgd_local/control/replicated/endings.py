"""The ends of training: an evaluation that reaches the target, a stop between epochs, and limits that have changed."""

from __future__ import annotations

import math
from dataclasses import replace

from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import BY_THE_LOOP, Replicated, limit


def stopped_between_epochs(state: Replicated) -> Replicated:
    """Return the state after all loops asked to end training, while no epoch was open."""
    return replace(state, stopped=BY_THE_LOOP)


def evaluated(
    state: Replicated, metrics: dict[str, float], target: tuple[str, float] | None, pending: int = 0
) -> Replicated:
    """Return the state after an evaluation of the averaged model. Reaching `target` stops the run.

    Where all members together have `pending` steps of the open round, or have steps of earlier rounds that were not
    averaged over all, one more round averages them.

    Metrics of other evaluations in the same round stay; of those with the same name the newest counts.
    """
    before = dict(state.metrics) if state.evaluated_round == state.round else {}
    state = replace(
        state,
        evaluations=state.evaluations + 1,
        metrics=tuple(sorted({**before, **metrics}.items())),
        evaluated=tuple(sorted(metrics)),
        evaluated_round=state.round,
    )
    reached = _goal(metrics, target)
    return replace(
        state,
        stopped=reached or state.stopped,
        drain=state.drain or bool(reached and (pending or not state.settled)),
    )


def _goal(metrics: dict[str, float], target: tuple[str, float] | None) -> str:
    if target is None or target[0] not in metrics or math.isnan(metrics[target[0]]):
        return ""
    name, wanted = target
    reached = metrics[name] <= wanted if is_error(name) else metrics[name] >= wanted
    return f"{name} reached {wanted:g}" if reached else ""


def resumed(state: Replicated, program: Program) -> Replicated:
    """Return a checkpoint's state under the present limits: training that ended by the old limits may go on."""
    if state.diverged or state.stopped in ("", BY_THE_LOOP):
        return state
    return replace(state, stopped=limit(state, program) or _goal(dict(state.metrics), program.target))


def is_error(metric: str) -> bool:
    """Whether a lower value of this metric is better.

    >>> is_error("loss"), is_error("top1_error"), is_error("accuracy")
    (True, True, False)
    """
    return any(word in metric.lower() for word in ("loss", "error", "perplexity"))
