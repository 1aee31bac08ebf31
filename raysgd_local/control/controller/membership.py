"""Workers come and go: requests, signs of life, losses, replacements."""

from __future__ import annotations

from raysgd_local.control.controller import termination
from raysgd_local.control.controller.events import CutView, KillWorker, Progress, RequestWorker, WorkerUp, Yield
from raysgd_local.control.controller.state import Phase, Standing, Turn, WorkerRow
from raysgd_local.control.marks import mark

_BACKOFF_S = 0.5
_BACKOFF_MAX_S = 60.0
_DRAINED = "its node is being drained"


def start(turn: Turn) -> None:
    """Ask for as many workers as the run may have; begin with those that come."""
    refill(turn)
    turn.set_timer("start", turn.state.settings.timeouts.start_s)


def refill(turn: Turn) -> None:
    """Ask for workers until there are as many as the run may have, and the spares."""
    while turn.state.staying < turn.state.settings.wanted:
        request(turn)


def request(turn: Turn) -> None:
    """Ask for one more worker, under a name that was never used; for none once training is over."""
    if turn.state.outcome is not None:
        return
    name = f"w{turn.state.requested}"
    turn.set(requested=turn.state.requested + 1, workers={**turn.state.workers, name: WorkerRow()})
    turn.do(RequestWorker(name))


def up(turn: Turn, event: WorkerUp) -> None:
    known = turn.state.workers.get(event.worker)
    if known is not None and known.standing is Standing.REQUESTED:
        turn.worker(event.worker, standing=Standing.UP, node=event.node, pid=event.pid, up_s=turn.now)
        if event.node in turn.state.draining:
            mark("newcomer_on_draining_node")
            drain(turn, event.worker, _DRAINED)


def progress(turn: Turn, event: Progress) -> None:
    """The first round of a view shows that it has formed."""
    view = turn.state.view
    known = event.worker in turn.state.workers
    if known and not turn.state.formed and view is not None and view.number == event.view:
        stall_s = 0.0 if turn.state.broken_s is None else turn.now - turn.state.broken_s
        turn.record("view_formed", view=view.number, workers=len(view.members), stall_s=round(stall_s, 4))
        turn.set(formed=True, broken_s=None, crashes=0)


def start_expired(turn: Turn) -> None:
    """The fewest workers did not come in time: at the start, more were asked for than there can be."""
    settings = turn.state.settings
    ready = len(turn.state.standing(Standing.READY))
    wait_s = settings.timeouts.start_s
    reason = f"{ready} were ready within {wait_s:g} s (workers.start_timeout_s)"
    termination.finish(turn, "lost" if turn.state.books else "unplaced", reason)


def lose(turn: Turn, worker: str, reason: str, replace: bool = True, own_fault: bool = False) -> None:
    """A process or node is gone. Survivors are cut loose at once; a replacement is asked for.

    Of one that had left in good order nothing is wanted any more, and its resources go back. One that its user
    code's `own_fault` ended is not counted among what `max_losses` limits.
    """
    state = turn.state
    if worker not in state.workers:
        turn.do(KillWorker(worker))
        termination.parts_missing(turn, worker, "is gone")
        return
    was = state.workers[worker].standing
    turn.set(
        workers={name: w for name, w in state.workers.items() if name != worker},
        arrivals={name: r for name, r in state.arrivals.items() if name != worker},
    )
    turn.do(KillWorker(worker))
    termination.parts_missing(turn, worker, "is gone")
    if state.phase is Phase.FINISHING:
        termination.check_finished(turn)
        return
    turn.set(losses=state.losses + (not own_fault), crashes=state.crashes + 1)
    turn.record("worker_lost", worker=worker, reason=reason)
    if turn.state.outcome is None and _too_many(turn):
        return
    if replace and was is not Standing.LEAVING:
        _replace(turn, worker)
    if was in (Standing.MEMBER, Standing.LEAVING):
        mark("second_loss_in_view", turn.state.phase is Phase.RESOLVING)
        mark("leaver_died", was is Standing.LEAVING)
        break_view(turn, f"{worker}: {reason}")


def _too_many(turn: Turn) -> bool:
    limit = turn.state.settings.max_losses
    if limit is None or turn.state.losses <= limit:
        return False
    termination.finish(turn, "lost", f"{turn.state.losses} workers lost, more than max_losses = {limit}")
    return True


def _replace(turn: Turn, worker: str) -> None:
    """Ask for a replacement of `worker`: the first at once, in a crash loop ever later."""
    crashes = turn.state.crashes
    if crashes <= turn.state.settings.workers_max:
        request(turn)
        return
    mark("crash_loop")
    delay_s = min(_BACKOFF_MAX_S, _BACKOFF_S * 2.0 ** (crashes - turn.state.settings.workers_max))
    turn.set_timer(f"respawn:{worker}", delay_s)


def respawn(turn: Turn) -> None:
    if turn.state.staying < turn.state.settings.wanted:
        request(turn)


def break_view(turn: Turn, why: str) -> None:
    """The view can't go on: its members leave their collectives now and arrive with what they have."""
    state = turn.state
    if state.view is None or state.phase not in (Phase.RUNNING, Phase.RESOLVING):
        return
    turn.set(broken_s=turn.now if state.broken_s is None else state.broken_s, burned=state.view.number)
    mark("view_broke_before_its_first_round", not state.formed and state.phase is Phase.RUNNING)
    to = tuple(w for w in state.members if w not in state.arrivals)
    if to:
        turn.do(CutView(state.view.number, to, why))
    if state.phase is Phase.RUNNING:
        turn.set(phase=Phase.RESOLVING, arriving_since=turn.now)


def drain(turn: Turn, worker: str, reason: str) -> None:
    """A worker will be ended soon: it leaves at the next boundary, without a broken round."""
    state = turn.state
    if worker not in state.workers or state.workers[worker].standing is Standing.LEAVING:
        return
    if state.workers[worker].standing is not Standing.MEMBER:
        mark("joiner_drained")
        turn.set(workers={name: w for name, w in state.workers.items() if name != worker})
        turn.do(KillWorker(worker))
        _replace(turn, worker)
        return
    leaving(turn, worker, reason)
    ask_yield(turn)


def nodes_draining(turn: Turn, nodes: tuple[str, ...]) -> None:
    """Machines will go away, and all workers on them."""
    turn.set(draining=nodes)
    for name, worker in turn.state.workers.items():
        if worker.node in nodes:
            drain(turn, name, _DRAINED)


def leaving(turn: Turn, worker: str, reason: str) -> None:
    """A member will be gone after the next boundary; its replacement is asked for now."""
    turn.worker(worker, standing=Standing.LEAVING)
    turn.record("drain_notice", worker=worker, reason=reason)
    request(turn)


def let_go(turn: Turn, worker: str, reason: str) -> None:
    """A member that is of no use leaves at this boundary; another is asked for in a while, elsewhere maybe."""
    known = turn.state.workers.get(worker)
    if known is None or known.standing is not Standing.MEMBER:
        return
    turn.worker(worker, standing=Standing.LEAVING)
    mark("straggler_let_go")
    turn.record("let_go", worker=worker, reason=reason)
    turn.set_timer(f"respawn:{worker}", _BACKOFF_MAX_S)


def ask_yield(turn: Turn) -> None:
    """Ask for a boundary, once a segment."""
    state = turn.state
    if state.phase is not Phase.RUNNING or state.yielded or state.view is None:
        return
    turn.set(yielded=True)
    turn.do(Yield(state.view.number, state.segment, state.members))
