"""Members of a view must ask for the same: find an evaluation in which some ranks take part and others never will.

Members decide on reduced values, so from one state on they take part in the same collectives, unless their loops are
not the same. A round can't be one rank's alone: a loop that leaves its epoch takes part until all have left it. An
evaluation can, while another loop waits for its next epoch or has ended. That recurs at each attempt, so it ends the
run, and no worker is taken for dead.
"""

from __future__ import annotations

from raysgd_local.control.controller.events import Heartbeat
from raysgd_local.control.controller.state import Controller, Running, Turn
from raysgd_local.control.marks import mark
from raysgd_local.control.messages import LoopPosition
from raysgd_local.control.replicated.failures import told_odds
from raysgd_local.control.run_events import EventName

_PATIENCE_S = 2.0
"""Time for messages that are late, though none can look like a disagreement: states are compared."""

_EVALUATES = "evaluates (ctx.evaluate)"
_WAITS = {
    LoopPosition.OPENING: "waits for its next epoch (ctx.epochs)",
    LoopPosition.FINISHED: "has ended its loop",
}

_REMEDY = (
    "All ranks have to call ctx.evaluate equally often: each evaluates its part of the data, and all get the same "
    "metrics. Only what needs no other rank (printing, files) may be for ctx.rank == 0 alone. To end training early, "
    "call ctx.stop() rather than leaving the loop on some ranks"
)


def disagree(turn: Turn, heartbeat: Heartbeat) -> bool:
    """End the run with a user error if members wait for different things; return whether they do."""
    wants = _wants(turn.state, heartbeat, turn.now)
    if not wants:
        return False
    mark("ranks_disagree")
    end(turn, wants)
    return True


def end(turn: Turn, wants: dict[int, str]) -> None:
    """End the run with a user error: by rank, what the loops want."""
    turn.record(EventName.RANKS_DISAGREE, wants={str(rank): want for rank, want in wants.items()})
    reason = told_odds(tuple(wants.items()))
    turn.finish("failed", reason, f"{reason}.\n{_REMEDY}", tuple(wants))


def _wants(state: Controller, heartbeat: Heartbeat, now: float) -> dict[int, str]:
    """Return by rank the ranks' wants, if an evaluation waits for ranks that want something else; otherwise nothing."""
    stage = state.stage
    if not isinstance(stage, Running) or stage.gathering_since is None:
        return {}
    view, arrived = stage.segment.view, stage.segment.arrivals
    found: dict[int, str] = {}
    for sign in heartbeat.signs:
        call = sign.evaluating
        if call is None or sign.view != view.number or sign.worker in arrived or sign.worker not in state.members:
            continue
        others = {
            view.rank(report.worker): _WAITS[report.place]
            for report in state.reports
            if report.place in _WAITS
            and report.replicated is not None
            and report.replicated.progress == (call.round, call.evaluations)
        }
        if others and min(call.since_s, now - stage.gathering_since) > _PATIENCE_S:
            found |= {view.rank(sign.worker): _EVALUATES, **others}
    return dict(sorted(found.items()))
