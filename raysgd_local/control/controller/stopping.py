"""Someone wants the run to end: a user at the terminal, or an exception in user code."""

from __future__ import annotations

from raysgd_local.control.controller import membership, termination
from raysgd_local.control.controller.state import Phase, Standing, Turn
from raysgd_local.control.marks import mark


def stop(turn: Turn, reason: str) -> None:
    """End at the next boundary, with a checkpoint; where there is nothing to save, at once."""
    state = turn.state
    if state.outcome is not None or state.stop:
        return
    turn.set(stop=reason)
    if state.phase in (Phase.STARTING, Phase.RESTORING):
        mark("stopped_before_a_view")
        termination.finish(turn, "interrupted", reason)
    elif state.phase is Phase.PAUSED:
        mark("stopped_while_paused")
        turn.set(phase=Phase.RUNNING)
    else:
        membership.ask_yield(turn)


def user_error(turn: Turn, worker: str, traceback: str) -> None:
    """An exception in user code: within `max_failures` the worker is replaced, otherwise it ends the run.

    The same exception usually comes from all ranks within moments, and is told once; if all had it, replacing them
    would only repeat it.
    """
    state = turn.state
    if worker not in state.workers:
        return
    rank = state.view.rank(worker) if state.view and worker in state.view.members else int(worker[1:])
    errors = {**state.errors, traceback: (*state.errors.get(traceback, ()), rank)}
    turn.set(errors=errors, failures=state.failures + 1)
    turn.record("user_error", worker=worker, rank=rank)
    if "errors" not in state.timers:
        turn.set_timer("errors", state.settings.timeouts.errors_s)
    membership.lose(turn, worker, "exception in user code", replace=not _failed(turn), own_fault=True)


def errors_gathered(turn: Turn) -> None:
    """Replace the workers that raised, unless there were too many such errors or nobody is left without."""
    state = turn.state
    left = state.standing(Standing.UP, Standing.READY, Standing.MEMBER, Standing.LEAVING)
    if _failed(turn) or not left:
        traceback, ranks = max(state.errors.items(), key=lambda item: len(item[1]))
        ranks = tuple(sorted(ranks))
        termination.finish(turn, "failed", "user code raised an exception", traceback, ranks)
        return
    turn.set(errors={})


def _failed(turn: Turn) -> bool:
    return 0 <= turn.state.settings.max_failures < turn.state.failures
