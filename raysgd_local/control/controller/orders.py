"""Orders: who is in the next view, who heals whom, and what is saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from raysgd_local.algorithms.placement.table import Placement
from raysgd_local.control.controller import boundary, dealing, membership, termination
from raysgd_local.control.controller.boundary import Books, Resolution
from raysgd_local.control.controller.checkpoints import CheckpointRecord
from raysgd_local.control.controller.events import Form, KillWorker, RewindTables, Status
from raysgd_local.control.controller.state import Phase, Standing, Turn
from raysgd_local.control.data import chunk_transfer
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.marks import mark
from raysgd_local.control.messages import Order, Report, Save, View
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import Replicated, resumed


def may_grow(turn: Turn, reports: Sequence[Report]) -> bool:
    """Joiners enter where members equal the anchor and an epoch is, or is about to be, open.

    Once training is stopped there is nothing to join: members go on to their last evaluation, a joiner's loop ends.
    """
    books = turn.state.books
    if books is None or books.replicated.stopped or not boundary.level(reports):
        return False
    return books.replicated.open or boundary.opening(reports, books.replicated) is not None


def next_order(turn: Turn, resolution: Resolution) -> None:
    """Heal, then grow: the order for the next segment, in the same view or in a new one."""
    reports = tuple(turn.state.arrivals[w] for w in turn.state.members)
    before = turn.state.view
    _put_off(turn, reports, resolution)
    view = _view(turn, _members(turn, reports, resolution))
    leaving = tuple(w for w in turn.state.standing(Standing.LEAVING) if w not in view.members)
    dealing.account(turn, resolution, view)
    order = _order(turn, view, _limited(turn, view, reports), resolution)
    if boundary.drained(reports):
        order = replace(order, save=_due_save(turn, view))
    _give(turn, order, leaving, changed=before is None or view.number != before.number)


def last_order(turn: Turn, resolution: Resolution, status: Status, reason: str, save: bool) -> None:
    """Training is over: members save what they have, if asked, and stay until that stands."""
    turn.set(outcome=(status, reason))
    if not save or not turn.state.settings.checkpoints.last:
        dismiss(turn)
        return
    if "finish" not in turn.state.timers:
        turn.set_timer("finish", turn.state.settings.timeouts.finish_s)
    view = _view(turn, turn.state.members)
    dealing.account(turn, resolution, view)
    order = _order(turn, view, turn.state.settings.program, resolution)
    _give(turn, replace(order, closing=True, save=_begin_save(turn, view, final=True)), (), changed=False)


def dismiss(turn: Turn) -> None:
    """Nothing is left to do for the members: they end by themselves, and the run with the last of them."""
    state = turn.state
    if state.view is None or state.outcome is None:
        raise RuntimeError("a run ends with a view and a reason")
    order = _order(turn, state.view, state.settings.program, None)
    turn.set(phase=Phase.FINISHING)
    turn.set_timer("exit", state.settings.timeouts.exit_s)
    turn.do(Form(replace(order, finish=state.outcome[0]), state.members))
    termination.check_finished(turn)


def _put_off(turn: Turn, reports: Sequence[Report], resolution: Resolution) -> None:
    """Members that got no state before the view broke wait again while the others have steps pending.

    What could be given to them now is not what was committed.
    """
    if boundary.level(reports):
        return
    for worker in resolution.empty:
        if turn.state.workers[worker].standing is Standing.MEMBER:
            turn.worker(worker, standing=Standing.READY)
            mark("member_without_state_waits_again")


def _members(turn: Turn, reports: Sequence[Report], resolution: Resolution) -> tuple[str, ...]:
    """Those who stay, in their order, then those who wait, where they may enter.

    Who wants to leave stays as long as the run would be too small without, or, for a round, to give the newest
    state, or chunks' data, where nobody else has it.
    """
    settings, level = turn.state.settings, boundary.level(reports)
    members = [w for w in turn.state.members if level or w not in resolution.empty]
    staying = [w for w in members if turn.state.workers[w].standing is Standing.MEMBER]
    joining = turn.state.standing(Standing.READY) if may_grow(turn, reports) else ()
    mark("joiner_postponed", not joining and bool(turn.state.standing(Standing.READY)))
    joining = joining[: settings.workers_max - len(staying)]
    if len(staying) + len(joining) < settings.workers_min:
        mark("leaver_stays_for_size", staying != members)
        staying = members
    elif not set(staying) & set(resolution.newest):
        mark("only_holder_of_state_leaves_later")
        staying = [w for w in members if w in staying or w == resolution.newest[0]]
    if settings.restricted and (staying or joining):
        givers = chunk_transfer.alone(dealing.have(turn, members), [w for w in members if w not in staying])
        mark("only_holder_of_chunk_leaves_later", bool(set(givers) - set(staying)))
        staying = [w for w in members if w in staying or w in givers]
    return (*staying, *joining)


def _view(turn: Turn, members: tuple[str, ...]) -> View:
    """The same view if nothing changed; a number that broke is never used again."""
    view = turn.state.view
    if view is not None and view.members == members and turn.state.burned != view.number:
        return view
    return View(view.number + 1 if view else 1, members)


def _limited(turn: Turn, view: View, reports: Sequence[Report]) -> Program:
    """The next boundary comes after one round, over all members, where that lets someone enter, leave, save or end."""
    program = turn.state.settings.program
    waiting = any(turn.state.workers[w].standing is Standing.LEAVING for w in view.members)
    overlaps = program.delayed and not any(report.broken for report in reports)  # who went on has steps pending
    pending = (any(report.steps for report in reports) and not overlaps) or not _same_round(reports)
    wanted = not boundary.drained(reports) and _model_wanted(turn, view)
    limited = waiting or pending or wanted
    whole = program.partial or program.delayed
    return replace(program, segment_rounds=1, whole=whole) if limited else program


def _same_round(reports: Sequence[Report]) -> bool:
    return len({report.replicated.round for report in reports if report.replicated is not None}) <= 1


def _model_wanted(turn: Turn, view: View) -> bool:
    """Whether somebody waits until all members have the model."""
    state = turn.state
    few = len(view.members) < state.settings.workers_min
    due = state.books is not None and state.saves.due(state.books.replicated, state.settings.checkpoints)
    return few or due or bool(state.stop) or bool(state.standing(Standing.READY))


def _order(turn: Turn, view: View, program: Program, resolution: Resolution | None) -> Order:
    state = turn.state
    if state.books is None:
        raise RuntimeError("an order has books")
    same = state.view is not None and state.view.number == view.number
    order = Order(
        view=view,
        segment=state.segment + 1 if same else 1,
        program=program,
        replicated=state.books.replicated,
        incarnation=state.incarnation,
        deal=state.books.deal,
        paused_s=state.paused_s,
        sources=dealing.sources(turn, view, state.books.deal.chunks) if state.books.deal is not None else (),
    )
    if resolution is None:
        return order
    lead = next(view.rank(worker) for worker in resolution.newest if worker in view.members)
    mark("member_behind", bool(resolution.behind))
    empty = {w for w in view.members if w not in state.arrivals} | set(resolution.empty)
    receivers = tuple(view.rank(worker) for worker in view.members if worker in empty)
    return replace(
        order,
        heal=lead if resolution.behind else None,
        donor=lead if receivers else None,
        receivers=receivers,
        align=any(report.broken for report in state.arrivals.values()),
    )


def _due_save(turn: Turn, view: View) -> Save | None:
    state = turn.state
    urgent = any(state.workers[w].standing is Standing.LEAVING for w in view.members)
    if state.books is None or not state.saves.due(state.books.replicated, state.settings.checkpoints, urgent):
        return None
    return _begin_save(turn, view, final=False)


def _begin_save(turn: Turn, view: View, final: bool) -> Save:
    state, books = turn.state, turn.state.books
    if books is None:
        raise RuntimeError("what is saved has books")
    policy = state.settings.checkpoints
    snapshot = CheckpointRecord(
        name=f"{state.saves.count + 1:06d}",
        view=view.number,
        incarnation=state.incarnation,
        members=view.members,
        everyone=policy.everyone,
        replicated=books.replicated,
        ledger=books.ledger,
        deal=books.deal,
        placement=books.placement,
    )
    turn.set(saves=state.saves.begin(snapshot, final))
    return Save(snapshot.name, policy.everyone, final)


def _give(turn: Turn, order: Order, leaving: tuple[str, ...], changed: bool) -> None:
    """Send the order to all it concerns, those included who are not in it any more."""
    state = turn.state
    joining = [w for w in order.view.members if state.workers[w].standing is Standing.READY]
    for worker in joining:
        turn.worker(worker, standing=Standing.MEMBER)
        known = turn.state.workers[worker]
        rank = order.view.rank(worker)
        turn.record("worker_joined", worker=worker, pid=known.pid, node=known.node, rank=rank)
    for worker in leaving:
        turn.record("worker_left", worker=worker)
        turn.set(workers={name: w for name, w in turn.state.workers.items() if name != worker})
    turn.set(
        phase=Phase.RUNNING,
        view=order.view,
        segment=order.segment,
        arrivals={},
        arriving_since=None,
        yielded=False,
        paused_s=0.0,
        formed=turn.state.formed and not changed,
    )
    turn.do(Form(order, (*order.view.members, *leaving)))


def first_view(turn: Turn) -> None:
    """The first view of an incarnation: fresh state from rank 0, or a checkpoint's; never a joiner's by chance."""
    state = turn.state
    members = state.standing(Standing.READY)[: state.settings.workers_max]
    view = _view(turn, members)
    for timer in ("start", "gather"):
        turn.clear_timer(timer)
    if state.resume is None:
        _begin_fresh(turn, view)
    else:
        _begin_from(turn, view, state.resume)


def _begin_fresh(turn: Turn, view: View) -> None:
    initial = Replicated(schedule=turn.state.settings.program.schedule.init())
    books = Books(
        boundary.seated(initial, None, view.members, None, dealing.blocks_of(turn, members=view.members)), Ledger()
    )
    turn.set(books=books)
    order = _order(turn, view, turn.state.settings.program, None)
    others = tuple(range(1, len(view.members)))
    _give(turn, replace(order, donor=0, receivers=others), (), changed=True)


def _begin_from(turn: Turn, view: View, snapshot: CheckpointRecord) -> None:
    """Go back to a checkpoint: with as many members in the same deal, otherwise what is left is dealt anew."""
    before = resumed(snapshot.replicated, turn.state.settings.program)
    state = replace(before, blocks=dealing.blocks_of(turn, view.members))
    books = Books(state, snapshot.ledger, snapshot.deal, _renamed(snapshot, view))
    turn.do(RewindTables(state.round, state.evaluations))
    turn.record("resumed", checkpoint=snapshot.name, round=state.round, epoch=state.epoch)
    if len(view.members) != len(snapshot.writers):
        dealing.tell_residuals(turn, dict(zip(snapshot.members, state.residuals, strict=False)), ())
    lost = books.placement is not None and not all(books.placement.holders)
    if len(view.members) != len(snapshot.members) or lost:
        mark("resumed_by_another_number")
        books = dealing.dealt(turn, books, None, view, {})
    turn.set(books=books)
    order = _order(turn, view, turn.state.settings.program, None)
    _give(turn, replace(order, restore=snapshot.name), (), changed=True)


def _renamed(snapshot: CheckpointRecord, view: View) -> Placement | None:
    """The checkpoint's placement with the new workers in their predecessors' places."""
    if snapshot.placement is None:
        return None
    names = dict(zip(snapshot.members, view.members, strict=False))
    holders = tuple(tuple(names[w] for w in chunk if w in names) for chunk in snapshot.placement.holders)
    return replace(snapshot.placement, holders=holders)


def begin_again(turn: Turn) -> None:
    """Nobody has the run's state any more: what was committed is in the newest checkpoint, or lost with the run."""
    state = turn.state
    committed = state.books is not None and state.books.replicated.round > 0
    newest = state.saves.published[-1] if state.saves.published else None
    mark("state_lost_while_closing", state.outcome is not None)
    if newest is None and (committed or state.resume is not None):
        mark("model_lost")
        lacking = "there is no checkpoint yet" if state.resume is None else "no checkpoint can be loaded"
        termination.finish(turn, "lost", f"no worker has the model any more, and {lacking}")
        return
    for worker in state.members:
        turn.do(KillWorker(worker))
    mark("nobody_has_state", bool(committed))
    mark("beginning_lost", not committed)
    gone = set(state.members)
    turn.set(
        phase=Phase.RESTORING,
        resume=newest,
        incarnation=state.incarnation + bool(committed),
        outcome=None,
        arrivals={},
        arriving_since=None,
        saves=state.saves.abandoned(),
        workers={name: w for name, w in state.workers.items() if name not in gone},
    )
    for timer in ("finish", "save"):
        turn.clear_timer(timer)
    turn.set_timer("start", state.settings.timeouts.start_s)
    membership.refill(turn)
