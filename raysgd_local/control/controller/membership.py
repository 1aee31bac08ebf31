"""Membership: request workers, replace lost ones, let members leave."""

from __future__ import annotations

from dataclasses import replace

from raysgd_local.control.controller import saving
from raysgd_local.control.controller.events import CutView, KillWorker, Progress, RequestWorker, WorkerUp, Yield
from raysgd_local.control.controller.state import Finishing, Resolving, Running, Turn
from raysgd_local.control.controller.transitions import Standing
from raysgd_local.control.marks import mark
from raysgd_local.control.run_events import EventName

_BACKOFF_S = 0.5
_BACKOFF_MAX_S = 60.0
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
    if event.worker not in state.workers or segment is None or segment.formed:
        return
    if segment.view.number == event.view:
        stall_s = 0.0 if state.broken_s is None else turn.now - state.broken_s
        workers = len(segment.view.members)
        turn.record(EventName.VIEW_FORMED, view=event.view, workers=workers, stall_s=round(stall_s, 4))
        turn.update(replace(segment, formed=True))
        turn.set(broken_s=None, crashes=0)


def start_expired(turn: Turn) -> None:
    """End the run: `workers_min` were not ready within `start_s`. At the start the cluster may be too small."""
    settings = turn.state.settings
    ready = len(turn.state.standing(Standing.READY))
    wait_s = settings.timeouts.start_s
    reason = f"{ready} were ready within {wait_s:g} s (workers.start_timeout_s)"
    turn.finish("lost" if turn.state.books else "unplaced", reason)


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
    turn.set(workers_lost=turn.state.workers_lost + (not own_fault), crashes=turn.state.crashes + 1)
    turn.record(EventName.WORKER_LOST, worker=worker, reason=reason)
    if turn.state.outcome is None and _too_many(turn):
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


def _replace(turn: Turn, worker: str) -> None:
    """Ask for a replacement of `worker`: at once, but in a crash loop after a growing delay."""
    crashes = turn.state.crashes
    if crashes <= turn.state.settings.workers_max:
        request(turn)
        return
    mark("crash_loop")
    delay_s = min(_BACKOFF_MAX_S, _BACKOFF_S * 2.0 ** (crashes - turn.state.settings.workers_max))
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
    mark("view_broke_before_its_first_round", isinstance(stage, Running) and not segment.formed)
    turn.set(broken_s=turn.now if state.broken_s is None else state.broken_s)
    to = tuple(worker for worker in state.members if worker not in segment.arrivals)
    if to:
        turn.do(CutView(segment.view.number, to, why))
    if isinstance(stage, Running):
        turn.enter(Resolving(segment, gathering_since=turn.now))
    else:
        turn.update(segment)


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
