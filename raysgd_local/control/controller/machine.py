"""The controller: the pure half of the driver. It decides on membership, on the resolved state, and on the run's end.

`advance(controller, event, now)` returns the next state and the commands, and does nothing else. Members run rounds by
themselves; the controller is asked at boundaries only, when *all* members have arrived. The same events give the
same commands, so a journal of them can be replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from raysgd_local.control.controller import agreement, arrivals, failure_detector, membership, saving, termination
from raysgd_local.control.controller.events import (
    Arrived,
    CheckpointFailed,
    CheckpointPublished,
    Command,
    Died,
    DrainNotice,
    Event,
    Heartbeat,
    NodesDraining,
    Progress,
    RunStarted,
    ShardWritten,
    StopRequested,
    Timer,
    UserError,
    WorkerUp,
)
from raysgd_local.control.controller.state import Controller, Turn
from raysgd_local.control.controller.transitions import Phase


def advance(controller: Controller, event: Event, now: float) -> tuple[Controller, tuple[Command, ...]]:
    """Return the next state, and the commands for the shell in order. `now` is in seconds and never falls."""
    if controller.phase is Phase.ENDED:
        return controller, ()
    turn = Turn(controller, now)
    _handle(turn, event)
    arrivals.consider(turn)
    return turn.state, tuple(turn.commands)


def _handle(turn: Turn, event: Event) -> None:
    match event:
        case RunStarted():
            membership.start(turn)
        case WorkerUp():
            membership.up(turn, event)
        case Arrived(report):
            arrivals.arrive(turn, report)
        case Progress():
            membership.progress(turn, event)
        case Heartbeat():
            if not agreement.disagree(turn, event):
                failure_detector.judge(turn, event)
        case Died(worker, reason):
            membership.lose(turn, worker, reason)
        case DrainNotice(worker, reason):
            membership.drain(turn, worker, reason)
        case NodesDraining(nodes):
            membership.nodes_draining(turn, nodes)
        case UserError(worker, traceback):
            termination.user_error(turn, worker, traceback)
        case ShardWritten():
            saving.shard_written(turn, event)
        case CheckpointPublished(name):
            saving.published(turn, name)
        case CheckpointFailed(name, reason):
            saving.checkpoint_failed(turn, name, reason)
        case StopRequested(reason):
            termination.stop(turn, reason)
        case Timer(id):
            _timer(turn, id)
        case _:
            assert_never(event)


def _timer(turn: Turn, number: int) -> None:
    """A timer expired. Ignore one that was set anew or cleared since."""
    names = [name for name, id in turn.state.timers.items() if id == number]
    for name in names:
        turn.clear_timer(name)
        _TIMERS[name.partition(":")[0]](turn)


_TIMERS: dict[str, Callable[[Turn], None]] = {
    "start": membership.start_expired,
    "gather": arrivals.gather_expired,
    "pause": termination.pause_expired,
    "errors": termination.errors_gathered,
    "finish": termination.finish_expired,
    "save": lambda _: None,  # from here on the last checkpoint may be tried again
    "exit": termination.exit_expired,
    "respawn": membership.respawn,
    "again": lambda _: None,  # from here on a view that broke may be formed again
}
