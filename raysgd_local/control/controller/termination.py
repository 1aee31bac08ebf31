"""The end of a run: it finishes, fails with a reason, or is interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raysgd_local.control.controller import boundary, membership
from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.controller.state import (
    Finishing,
    Outcome,
    Paused,
    Restoring,
    Running,
    Starting,
    Turn,
)
from raysgd_local.control.controller.transitions import Standing
from raysgd_local.control.marks import mark
from raysgd_local.control.messages import LoopPosition, Report, worker_number
from raysgd_local.control.run_events import EventName


@dataclass(frozen=True)
class Ending:
    """The run ends at this boundary."""

    outcome: Outcome
    save: bool  # write a last checkpoint


def reason_to_end(turn: Turn, books: Books, reports: Sequence[Report]) -> Ending | None:
    """Return how and why the run ends at this boundary; None if it goes on."""
    state, replicated = turn.state, books.replicated
    if state.errors:
        return None
    if replicated.diverged:
        return Ending(Outcome("failed", replicated.stopped), save=False)
    mark("stop_waits_for_pending_steps", bool(state.stop) and not boundary.drained(reports))
    if state.stop and boundary.drained(reports):
        return Ending(Outcome("interrupted", state.stop), save=True)
    goes_on = bool(replicated.epochs) and replicated.open and not replicated.stopped  # the one with data left died
    if all(report.place is LoopPosition.FINISHED for report in reports) and not goes_on:
        return Ending(Outcome("finished", replicated.stopped or "all epochs are done"), save=True)
    return None


# Requests to end: by a user at the terminal, or by an exception in user code.


def stop(turn: Turn, reason: str) -> None:
    """End at the next boundary, with a checkpoint; if there is nothing to save, end at once."""
    state = turn.state
    if state.outcome is not None or state.stop:
        return
    turn.set(stop=reason)
    match state.stage:
        case Starting() | Restoring():
            mark("stopped_before_a_view")
            turn.finish("interrupted", reason)
        case Paused(segment):
            mark("stopped_while_paused")
            turn.enter(Running(segment))
        case _:
            membership.ask_yield(turn)


def user_error(turn: Turn, worker: str, traceback: str) -> None:
    """User code raised an exception: replace the worker within `max_failures`, otherwise end the run.

    The same exception usually comes from all ranks within moments, so collect them first and show it once. If every
    worker raised, replacements would raise again.
    """
    state = turn.state
    if worker not in state.workers:
        return
    rank = state.view.rank(worker) if state.view and worker in state.view.members else worker_number(worker)
    errors = {**state.errors, traceback: (*state.errors.get(traceback, ()), rank)}
    turn.set(errors=errors, failures=state.failures + 1)
    turn.record(EventName.USER_ERROR, worker=worker, rank=rank)
    if "errors" not in state.timers:
        turn.set_timer("errors", state.settings.timeouts.errors_s)
    membership.lose(turn, worker, "exception in user code", refill=not _failed(turn), own_fault=True)


def errors_gathered(turn: Turn) -> None:
    """Go on with the other workers and the replacements; end if more than `max_failures` raised, or all did."""
    state = turn.state
    left = state.standing(Standing.UP, Standing.READY, Standing.MEMBER, Standing.LEAVING)
    if _failed(turn) or not left:
        traceback, ranks = max(state.errors.items(), key=lambda item: len(item[1]))
        turn.finish("failed", "user code raised an exception", traceback, tuple(sorted(ranks)))
        return
    turn.set(errors={})


def _failed(turn: Turn) -> bool:
    """Whether another exception would be too many, or the same would be raised again and again."""
    allowed = turn.state.settings.max_failures
    return 0 <= allowed < turn.state.failures or membership.crash_looped(turn.state)


# Expired timers.


def exit_expired(turn: Turn) -> None:
    """End the run without waiting any longer for members to end by themselves."""
    if isinstance(turn.state.stage, Finishing):
        outcome = turn.state.stage.outcome
        turn.finish(outcome.status, outcome.reason)


def finish_expired(turn: Turn) -> None:
    """The last checkpoint was not written in time: the newest training is lost, so the run fails."""
    outcome = turn.state.outcome
    if outcome is None or isinstance(turn.state.stage, Finishing):
        return
    mark("last_checkpoint_given_up")
    late = f"the last checkpoint was not written within {turn.state.settings.timeouts.finish_s:g} s"
    turn.record(EventName.CHECKPOINT_FAILED, reason=late)
    turn.finish("lost" if outcome.status == "finished" else outcome.status, f"{outcome.reason}, but {late}")


def pause_expired(turn: Turn) -> None:
    """End a run that had fewer than `workers_min` workers for too long."""
    if isinstance(turn.state.stage, Paused):
        settings = turn.state.settings
        turn.finish("lost", f"fewer than {settings.workers_min} workers for {settings.timeouts.pause_s:g} s")
