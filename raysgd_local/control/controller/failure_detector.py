"""The failure detector: declare workers lost that are silent, never ready, late at a boundary, or stragglers.

The limits follow the measured round time, between a floor and a ceiling. Silence counts only while the driver itself
ran and heard some worker: a machine that stands still for a moment must not cost workers.
"""

from __future__ import annotations

from collections.abc import Iterator

from raysgd_local.control.controller import membership
from raysgd_local.control.controller.events import Heartbeat, SignOfLife
from raysgd_local.control.controller.state import Resolving, Running, Turn
from raysgd_local.control.controller.transitions import Phase, Standing
from raysgd_local.control.marks import mark

_GAPS = 3.0
"""Tolerate silence up to 3 × the longest recent gap between heartbeats of any worker, whatever the round time."""

_BEATS = 6
"""Tolerate this many missing heartbeats, whatever the round time."""

_JOINING = 4
"""Tolerate silence up to 4 × the floor from a member that has not committed a round yet, beside others that have."""


def judge(turn: Turn, heartbeat: Heartbeat) -> None:
    """Declare workers lost that exceed a limit. If a collective is stuck and no member is late, break the view."""
    for worker, reason in [*_silent(turn, heartbeat), *_unready(turn), *_absent(turn, heartbeat)]:
        membership.lose(turn, worker, reason)
    stuck_s = _stuck_s(turn, heartbeat)
    if stuck_s:
        _free(turn, heartbeat, f"kept the others waiting for {stuck_s:.3g} s")


def _silent(turn: Turn, heartbeat: Heartbeat) -> Iterator[tuple[str, str]]:
    """Yield workers that sent no heartbeat within the limit: their process is stopped or can't be reached.

    A worker that is not a member gets the ceiling, because loading and building may block its other threads. So does
    every worker while no other worker is heard, because the driver may be the one that is cut off. A member that has
    not committed a round gets a limit in between: it does much for the first time, but all others wait for it.
    """
    limit = turn.state.settings.timeouts.heartbeat
    settled = turn.state.formed  # one member committed a round of this view, so all members have run it
    members = turn.state.members
    steady = {s.worker: s for s in heartbeat.signs if s.worker in members and (s.round_s or settled)}
    gap_s = max((sign.gap_s for sign in steady.values()), default=0.0)
    least_s = max(_GAPS * gap_s, _BEATS * turn.state.settings.timeouts.beat_s)
    derived_s = limit.seconds(round_s(heartbeat), least_s)
    joining_s = min(max(derived_s, _JOINING * limit.floor_s), limit.ceiling_s)
    for sign in heartbeat.signs:
        silent_s, compared_s = min(sign.age_s, heartbeat.awake_s), min(sign.age_s, heartbeat.hears_s)
        borne_s = derived_s if sign.worker in steady else joining_s if sign.worker in members else limit.ceiling_s
        if compared_s > borne_s or silent_s > limit.ceiling_s:
            mark("silent_worker_given_up")
            yield sign.worker, f"no sign of life for {sign.age_s:.3g} s"


def _unready(turn: Turn) -> Iterator[tuple[str, str]]:
    """Yield workers whose process runs, but whose loop did not come to its first epoch in time.

    Loading, downloading or tokenising may take long, and a silent process is noticed before.
    """
    limit_s = turn.state.settings.timeouts.prepare_s
    for name, worker in turn.state.workers.items():
        if worker.standing is Standing.UP and turn.now - worker.up_s > limit_s:
            yield name, f"was not ready within {limit_s:g} s of its process's start"


def _absent(turn: Turn, heartbeat: Heartbeat) -> Iterator[tuple[str, str]]:
    """Yield members that did not arrive in time at a boundary at which others wait.

    A member whose loop has ended comes long before the others, who may have work of their own between two epochs. A
    member that measures shards may have much to read.
    """
    stage = turn.state.stage
    if not isinstance(stage, Running | Resolving) or stage.gathering_since is None:
        return
    waited_s = min(turn.now - stage.gathering_since, heartbeat.awake_s)
    timeouts = turn.state.settings.timeouts
    long = stage.segment.measuring or (stage.segment.only_ended and bool(stage.segment.arrivals))
    limit_s = timeouts.straggler.ceiling_s if long else timeouts.arrival.seconds(round_s(heartbeat))
    if waited_s > limit_s:
        for worker in turn.state.members:
            if worker not in stage.segment.arrivals:
                mark("arrival_timed_out")
                yield worker, f"did not arrive within {limit_s:.3g} s of the others"


def _stuck_s(turn: Turn, heartbeat: Heartbeat) -> float:
    """Return how long members have been waiting in the view's collective, if that is over the limit; otherwise 0."""
    if turn.state.phase is not Phase.RUNNING:
        return 0.0
    waits_s = min(max((sign.waits_s for sign in _present(turn, heartbeat)), default=0.0), heartbeat.awake_s)
    limit_s = turn.state.settings.timeouts.straggler.seconds(round_s(heartbeat))
    return waits_s if waits_s > limit_s else 0.0


def _free(turn: Turn, heartbeat: Heartbeat, why: str) -> None:
    """Let the waiting members go on: without the stragglers, or in another view if all wait for each other."""
    arrived = {report.worker for report in turn.state.reports}
    waiting = {sign.worker for sign in _present(turn, heartbeat) if sign.waits_s} | arrived
    late = [worker for worker in turn.state.members if worker not in waiting]
    mark("straggler_given_up", bool(late))
    for worker in late:
        membership.lose(turn, worker, why)
    if not late:
        mark("collective_stuck")
        membership.break_view(turn, "a collective did not complete")


def _present(turn: Turn, heartbeat: Heartbeat) -> list[SignOfLife]:
    """Return the signs of life of members that have the present view's order."""
    view = turn.state.view
    return [
        sign
        for sign in heartbeat.signs
        if view is not None and sign.view == view.number and sign.worker in turn.state.members
    ]


def round_s(heartbeat: Heartbeat) -> float | None:
    """Return the round time: the longest of all workers' newest rounds; None before the first."""
    return max((sign.round_s for sign in heartbeat.signs if sign.round_s), default=None)
