"""Membership: request workers, replace lost ones, let members leave."""

from __future__ import annotations

from dataclasses import replace

from raysgd_local.control.controller import saving
from raysgd_local.control.controller.events import CutView, KillWorker, Progress, RequestWorker, WorkerUp, Yield
from raysgd_local.control.controller.state import Controller, Finishing, Resolving, Running, Segment, Turn
from raysgd_local.control.controller.transitions import Standing
from raysgd_local.control.marks import mark
from raysgd_local.control.run_events import EventName

_BACKOFF_S = 0.5
_BACKOFF_MAX_S = 60.0
_FRUITLESS, _FRUITLESS_EACH = 10, 5
"""A crash loop ends the run after so many losses without a new round; and after so many for each worker."""

_BREAKS, _BREAKS_AT_ONCE, _AGAIN_S, _AGAIN_MAX_S = 15, 3, 0.25, 8.0
"""A view that breaks before its first round, without a loss, is formed again at once, then after a growing delay, and
ends the run after so many times. That bears an outage of the network of a minute."""

_DRAINED = "its node is being drained"


def start(turn: Turn) -> None:
    """Begin the run: ask for as many workers as it may have, and for its spares."""
    refill(turn)
    turn.set_timer("start", turn.state.settings.timeouts.start_s)


def refill(turn: Turn) -> None:
    """Ask for workers until there are as many as the run may have, and its spares."""
    while turn.state.staying < turn.state.settings.wanted:
        request(turn)


def request(turn: Turn) -> None:
    """Ask for one more worker, under a name that was never used. Once training is over, do nothing."""
    if turn.state.outcome is None:
        turn.do(RequestWorker(turn.hire()))


def up(turn: Turn, event: WorkerUp) -> None:
    """A requested worker's process runs. Replace the worker if its node is being drained."""
    known = turn.state.workers.get(event.worker)
    if known is not None and known.standing is Standing.REQUESTED:
        turn.stand(event.worker, Standing.UP, node=event.node, pid=event.pid, up_s=turn.now)
        if event.node in turn.state.draining:
            mark("newcomer_on_draining_node")
            drain(turn, event.worker, _DRAINED)


def progress(turn: Turn, event: Progress) -> None:
    """A member committed the first round of its view, which shows that the view has formed."""
    state, segment = turn.state, turn.state.segment
    if event.worker not in state.workers or segment is None:
        return
    reached(turn, event.round)
    if segment.formed:
        return
    if segment.view.number == event.view:
        stall_s = 0.0 if state.broken_s is None else turn.now - state.broken_s
        workers = len(segment.view.members)
        turn.record(EventName.VIEW_FORMED, view=event.view, workers=workers, stall_s=round(stall_s, 4))
        turn.update(replace(segment, formed=True))
        turn.set(broken_s=None, crashes=0, breaks=0)


def reached(turn: Turn, round: int) -> None:
    """A member has committed this round. If none had before, losses have not been fruitless."""
    if round > turn.state.highest_round:
        turn.set(highest_round=round, fruitless=0)


def start_expired(turn: Turn) -> None:
    """Fewer than `workers_min` were ready within `start_s`.

    Wait on where the processes of as many run: preparing may take long. Otherwise end the run, since the cluster may be
    too small.
    """
    state, timeouts = turn.state, turn.state.settings.timeouts
    preparing, ready = state.standing(Standing.UP), len(state.standing(Standing.READY))
    placed, more_s = len(preparing) + ready, timeouts.prepare_s - timeouts.start_s
    if placed < state.settings.workers_min:
        reason = f"{placed} were placed within {timeouts.start_s:g} s (workers.start_timeout_s)"
        turn.finish("lost" if state.books else "unplaced", reason)
    elif state.preparing or not more_s:
        few = f"{ready} of {state.settings.workers_min} workers were ready within {timeouts.prepare_s:g} s"
        turn.finish("lost", f"{few} (workers.pause_limit_s); {', '.join(preparing)} still prepared")
    else:
        mark("start_put_off_for_preparing")
        turn.set(preparing=True)
        turn.record(EventName.PREPARING, workers=list(preparing), after_s=timeouts.start_s)
        turn.set_timer("start", more_s)


def lose(turn: Turn, worker: str, reason: str, refill: bool = True, own_fault: bool = False) -> None:
    """A worker's process or node is gone: break its view at once, and ask for a replacement if `refill`.

    A worker that already left cleanly is only released. A worker whose user code raised an exception (`own_fault`)
    does not count towards `max_losses`.
    """
    known = turn.state.workers.get(worker)
    if known is not None:
        turn.remove([worker])
    turn.do(KillWorker(worker))
    saving.parts_missing(turn, worker, "is gone")
    if known is None:
        return
    if isinstance(turn.state.stage, Finishing):
        check_finished(turn)
        return
    turn.set(
        workers_lost=turn.state.workers_lost + (not own_fault),
        crashes=turn.state.crashes + 1,
        fruitless=turn.state.fruitless + 1,
        breaks=0,
    )
    turn.clear_timer("again")
    turn.record(EventName.WORKER_LOST, worker=worker, reason=reason)
    if turn.state.outcome is None and not own_fault and (_too_many(turn) or _crash_loop(turn, reason)):
        return
    if refill and known.standing is not Standing.LEAVING:
        _replace(turn, worker)
    if known.standing in (Standing.MEMBER, Standing.LEAVING):
        mark("leaver_died", known.standing is Standing.LEAVING)
        mark("second_loss_in_view", isinstance(turn.state.stage, Resolving))
        break_view(turn, f"{worker}: {reason}")


def check_finished(turn: Turn) -> None:
    """End the run once the last member has ended."""
    stage = turn.state.stage
    if isinstance(stage, Finishing) and not turn.state.members:
        turn.finish(stage.outcome.status, stage.outcome.reason)


def _too_many(turn: Turn) -> bool:
    limit = turn.state.settings.max_losses
    if limit is None or turn.state.workers_lost <= limit:
        return False
    turn.finish("lost", f"{turn.state.workers_lost} workers lost, more than max_losses = {limit}")
    return True


def crash_looped(state: Controller) -> bool:
    """Whether so many workers were lost since the newest round that others would be lost like them."""
    return state.fruitless >= max(_FRUITLESS, _FRUITLESS_EACH * state.settings.wanted)


def _crash_loop(turn: Turn, reason: str) -> bool:
    """End the run if workers die again and again before a round that none had committed before."""
    state = turn.state
    if not crash_looped(state):
        return False
    mark("crash_loop_given_up")
    told = f"{state.fruitless} workers in a row were lost, and no round after {state.highest_round} was committed"
    turn.finish("lost", f"{told}; the last one: {reason}")
    return True


def _replace(turn: Turn, worker: str) -> None:
    """Ask for a replacement of `worker`: at once, but in a crash loop after a growing delay."""
    crashes = turn.state.crashes
    if crashes <= turn.state.settings.workers_max:
        request(turn)
        return
    mark("crash_loop")
    delay_s = min(_BACKOFF_MAX_S, _BACKOFF_S * 2.0 ** min(10, crashes - turn.state.settings.workers_max))
    turn.set_timer(f"respawn:{worker}", delay_s)


def respawn(turn: Turn) -> None:
    """The delay before a replacement is over: ask for the worker, if it is still wanted."""
    if turn.state.staying < turn.state.settings.wanted:
        request(turn)


def break_view(turn: Turn, why: str) -> None:
    """End the view: its members leave their collectives now, and arrive with the state and steps that they have."""
    state, stage = turn.state, turn.state.stage
    if not isinstance(stage, Running | Resolving):
        return
    segment = replace(stage.segment, broken=True)
    if isinstance(stage, Running) and not segment.formed and _breaks_for_ever(turn, segment, why):
        return
    turn.set(broken_s=turn.now if state.broken_s is None else state.broken_s)
    to = tuple(worker for worker in state.members if worker not in segment.arrivals)
    if to:
        turn.do(CutView(segment.view.number, to, why))
    if isinstance(stage, Running):
        turn.enter(Resolving(segment, gathering_since=turn.now))
    else:
        turn.update(segment)


def _breaks_for_ever(turn: Turn, segment: Segment, why: str) -> bool:
    """Count a view that broke before its first round. End the run if that recurs, as no worker's loss explains it."""
    mark("view_broke_before_its_first_round")
    breaks, view = turn.state.breaks, segment.view
    if any(worker not in turn.state.workers for worker in view.members):
        return False  # a worker was lost; `lose` began the count anew
    turn.set(breaks=breaks + 1)
    if not breaks:
        return False
    turn.record(EventName.VIEW_BROKE, view=view.number, times=breaks + 1, reason=why)
    if breaks + 1 >= _BREAKS:
        mark("view_broke_for_ever")
        told = f"{_BREAKS} views of the same workers broke before their first round"
        turn.finish("lost", f"{told}; the last one: {why}")
        return True
    if breaks >= _BREAKS_AT_ONCE:
        turn.set_timer("again", min(_AGAIN_MAX_S, _AGAIN_S * 2.0 ** (breaks - _BREAKS_AT_ONCE)))
    return False


def drain(turn: Turn, worker: str, reason: str) -> None:
    """A worker's process will end soon: let a member leave at the next boundary, replace any other worker now."""
    known = turn.state.workers.get(worker)
    if known is None or known.standing is Standing.LEAVING:
        return
    if known.standing is not Standing.MEMBER:
        mark("joiner_drained")
        turn.remove([worker])
        turn.do(KillWorker(worker))
        _replace(turn, worker)
        return
    leaving(turn, worker, reason)
    ask_yield(turn)


def nodes_draining(turn: Turn, nodes: tuple[str, ...]) -> None:
    """These nodes will end, and all workers on them."""
    turn.set(draining=nodes)
    for name, worker in turn.state.workers.items():
        if worker.node in nodes:
            drain(turn, name, _DRAINED)


def leaving(turn: Turn, worker: str, reason: str) -> None:
    """Let a member leave at the next boundary; ask for its replacement now."""
    turn.stand(worker, Standing.LEAVING)
    turn.record(EventName.DRAIN_NOTICE, worker=worker, reason=reason)
    request(turn)


def let_go(turn: Turn, worker: str, reason: str) -> None:
    """Let a member that is too slow leave at this boundary.

    Ask for another one after a delay: it may then come up on another node.
    """
    known = turn.state.workers.get(worker)
    if known is None or known.standing is not Standing.MEMBER:
        return
    turn.stand(worker, Standing.LEAVING)
    mark("straggler_let_go")
    turn.record(EventName.LET_GO, worker=worker, reason=reason)
    turn.set_timer(f"respawn:{worker}", _BACKOFF_MAX_S)


def ask_yield(turn: Turn) -> None:
    """Ask the members for a boundary, once in a segment."""
    stage = turn.state.stage
    if isinstance(stage, Running) and not stage.segment.yielded:
        turn.update(replace(stage.segment, yielded=True))
        turn.do(Yield(stage.segment.view.number, stage.segment.number, turn.state.members))
