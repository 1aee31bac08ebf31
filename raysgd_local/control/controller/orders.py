"""Orders: choose the next view's members, say how each comes to the resolved state, and begin due checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from raysgd_local.control.controller import boundary, dealing, membership
from raysgd_local.control.controller.boundary import Books, Resolution
from raysgd_local.control.controller.checkpoints import CheckpointRecord
from raysgd_local.control.controller.events import Form
from raysgd_local.control.controller.state import Finishing, Outcome, Running, Segment, Turn
from raysgd_local.control.controller.transitions import Standing
from raysgd_local.control.data import chunk_transfer
from raysgd_local.control.data.deal import Deal
from raysgd_local.control.marks import mark
from raysgd_local.control.messages import Continuation, Order, Report, Save, Start, View
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.run_events import EventName


def may_grow(books: Books, reports: Sequence[Report]) -> bool:
    """Whether workers may enter: members have the committed state and no more, and an epoch is open or about to be.

    Once training is over no worker enters: members go on to their last evaluation, and a new worker's loop would end.
    """
    if books.replicated.stopped or not boundary.level(reports):
        return False
    return books.replicated.open or boundary.opening(reports, books.replicated) is not None


def next_order(turn: Turn, segment: Segment, resolution: Resolution) -> None:
    """Give the order for the next segment, in the same view or in a new one: heal, then grow."""
    reports = turn.state.reports
    _put_off(turn, reports, resolution)
    view = next_view(segment, _members(turn, segment, reports, resolution))
    leaving = tuple(w for w in turn.state.standing(Standing.LEAVING) if w not in view.members)
    books = dealing.account(turn, segment, resolution, view)
    program = _limited(turn, view, books, reports)
    order = _next(turn, segment, view, books, program, _continuation(segment, view, resolution))
    order = replace(order, save=_due_save(turn, view, books, reports))
    give(turn, order, books, formed=segment.formed and view.number == segment.view.number, leaving=leaving)


def last_order(turn: Turn, segment: Segment, resolution: Resolution, outcome: Outcome, save: bool) -> None:
    """Training is over: members save their state if `save`, and stay until the checkpoint is published."""
    turn.set(outcome=outcome)
    if not save or not turn.state.settings.checkpoints.last:
        dismiss(turn, segment, outcome)
        return
    if "finish" not in turn.state.timers:
        turn.set_timer("finish", turn.state.settings.timeouts.finish_s)
    view = next_view(segment, turn.state.members)
    books = dealing.account(turn, segment, resolution, view)
    program = turn.state.settings.program
    order = _next(turn, segment, view, books, program, _continuation(segment, view, resolution))
    order = replace(order, closing=True, save=_begin_save(turn, view, books, final=True))
    give(turn, order, books, formed=segment.formed)


def measure(
    turn: Turn, segment: Segment, source: str, lengths: Mapping[int, int], reports: Sequence[Report]
) -> bool:
    """Have members measure shards that only dead workers knew, and arrive at this boundary again.

    Return False if no member has the source: all that read it died before another one's loop had come so far.
    """
    readers = [r.worker for r in reports if source in (r.source, r.shards.names if r.shards else "")]
    if not readers:
        return False
    parts = {worker: tuple(sorted(lengths.items())[rank :: len(readers)]) for rank, worker in enumerate(readers)}
    asked = replace(segment, number=segment.number + 1, arrivals={}, measuring=True)
    order = Order(
        view=segment.view,
        segment=asked.number,
        program=turn.state.settings.program,
        replicated=segment.books.replicated,
        incarnation=turn.state.incarnation,
        deal=segment.books.deal,
        measure=tuple(parts.items()),
        measured=source,
    )
    turn.enter(Running(asked))
    turn.do(Form(order, turn.state.members))
    return True


def dismiss(turn: Turn, segment: Segment, outcome: Outcome) -> None:
    """Release the members: they end by themselves, and the run ends with the last of them."""
    settings = turn.state.settings
    order = _next(turn, segment, segment.view, segment.books, settings.program, Continuation())
    turn.enter(Finishing(segment, outcome))
    turn.set_timer("exit", settings.timeouts.exit_s)
    turn.do(Form(replace(order, finish=outcome.status), turn.state.members))
    membership.check_finished(turn)


def _put_off(turn: Turn, reports: Sequence[Report], resolution: Resolution) -> None:
    """Make members without state wait again if others have steps pending.

    The view broke before they received state, and a member with pending steps can't send the committed state.
    """
    if boundary.level(reports):
        return
    for worker in resolution.empty:
        if turn.state.workers[worker].standing is Standing.MEMBER:
            mark("member_without_state_waits_again")
            turn.stand(worker, Standing.READY)


def _members(turn: Turn, segment: Segment, reports: Sequence[Report], resolution: Resolution) -> tuple[str, ...]:
    """Return the members that stay, in their order, then the ready workers, if they may enter.

    A member that wants to leave stays while the run would have fewer than `workers_min` without it. It stays for one
    round if no other member has the newest state, or has the data of a chunk.
    """
    settings, level = turn.state.settings, boundary.level(reports)
    members = [w for w in turn.state.members if level or w not in resolution.empty]
    staying = [w for w in members if turn.state.workers[w].standing is Standing.MEMBER]
    joining = turn.state.standing(Standing.READY) if may_grow(segment.books, reports) else ()
    mark("joiner_postponed", not joining and bool(turn.state.standing(Standing.READY)))
    joining = joining[: settings.workers_max - len(staying)]
    if len(staying) + len(joining) < settings.workers_min:
        mark("leaver_stays_for_size", staying != members)
        staying = members
    elif not set(staying) & set(resolution.newest):
        mark("only_holder_of_state_leaves_later")
        staying = [w for w in members if w in staying or w == resolution.newest[0]]
    if settings.local_data and (staying or joining):
        givers = chunk_transfer.alone(dealing.have(turn, members), [w for w in members if w not in staying])
        mark("only_holder_of_chunk_leaves_later", bool(set(givers) - set(staying)))
        staying = [w for w in members if w in staying or w in givers]
    return (*staying, *joining)


def next_view(segment: Segment | None, members: tuple[str, ...]) -> View:
    """Return the same view if its members did not change. The number of a broken view is never used again."""
    if segment is None:
        return View(1, members)
    if segment.view.members == members and not segment.broken:
        return segment.view
    return View(segment.view.number + 1, members)


def _limited(turn: Turn, view: View, books: Books, reports: Sequence[Report]) -> Program:
    """One round, over all members, up to the next boundary, where that lets a worker enter, leave, save or end."""
    program = turn.state.settings.program
    waiting = any(turn.state.workers[w].standing is Standing.LEAVING for w in view.members)
    overlaps = program.delayed and not any(report.broken for report in reports)  # overlapped steps are pending
    pending = (any(report.steps for report in reports) and not overlaps) or not _same_round(reports)
    wanted = not boundary.drained(reports) and _model_wanted(turn, view, books)
    limited = waiting or pending or wanted
    whole = program.partial or program.delayed
    return replace(program, segment_rounds=1, whole=whole) if limited else program


def _same_round(reports: Sequence[Report]) -> bool:
    return len({report.replicated.round for report in reports if report.replicated is not None}) <= 1


def _model_wanted(turn: Turn, view: View, books: Books) -> bool:
    """Whether a worker, a checkpoint or the end of the run waits until all members have the model."""
    state = turn.state
    few = len(view.members) < state.settings.workers_min
    due = state.saves.due(books.replicated, state.settings.checkpoints)
    return few or due or bool(state.stop) or bool(state.standing(Standing.READY))


def first_order(turn: Turn, view: View, books: Books, start: Start) -> None:
    """Give the first order of an incarnation: all of the view's members enter."""
    program = turn.state.settings.program
    give(turn, _next(turn, turn.state.segment, view, books, program, start), books, formed=False)


def _next(turn: Turn, segment: Segment | None, view: View, books: Books, program: Program, start: Start) -> Order:
    """Return the order that follows `segment`."""
    state = turn.state
    same = segment is not None and segment.view.number == view.number
    return Order(
        view=view,
        segment=segment.number + 1 if segment is not None and same else 1,
        program=program,
        replicated=books.replicated,
        incarnation=state.incarnation,
        start=start,
        deal=books.deal,
        found=books.found,
        sources=dealing.sources(turn, view, books.deal.chunks) if isinstance(books.deal, Deal) else (),
        paused_s=state.paused_s,
    )


def _continuation(segment: Segment, view: View, resolution: Resolution) -> Continuation:
    """Let the first member with the newest round heal the others and give them state."""
    mark("member_behind", bool(resolution.behind))
    empty = {w for w in view.members if w not in segment.arrivals} | set(resolution.empty)
    return Continuation(
        lead=next(view.rank(worker) for worker in resolution.newest if worker in view.members),
        heal=bool(resolution.behind),
        receivers=tuple(view.rank(worker) for worker in view.members if worker in empty),
        align=any(report.broken for report in segment.arrivals.values()),
    )


def _due_save(turn: Turn, view: View, books: Books, reports: Sequence[Report]) -> Save | None:
    """Begin a checkpoint if one is due and no steps are pending."""
    state = turn.state
    urgent = any(state.workers[w].standing is Standing.LEAVING for w in view.members)
    if not boundary.drained(reports) or not state.saves.due(books.replicated, state.settings.checkpoints, urgent):
        return None
    return _begin_save(turn, view, books, final=False)


def _begin_save(turn: Turn, view: View, books: Books, final: bool) -> Save:
    state = turn.state
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
        found=books.found,
        placement=books.placement,
    )
    turn.set(saves=state.saves.begin(snapshot, final))
    return Save(snapshot.name, policy.everyone, final)


def give(turn: Turn, order: Order, books: Books, formed: bool, leaving: tuple[str, ...] = ()) -> None:
    """Send the order to the view's members, and to the workers that leave with it."""
    for worker in order.view.members:
        known = turn.state.workers[worker]
        if known.standing is Standing.READY:
            turn.stand(worker, Standing.MEMBER)
            rank = order.view.rank(worker)
            turn.record(EventName.WORKER_JOINED, worker=worker, pid=known.pid, node=known.node, rank=rank)
    for worker in leaving:
        turn.record(EventName.WORKER_LEFT, worker=worker)
    turn.remove(leaving)
    turn.enter(Running(Segment(order.view, order.segment, books, formed=formed)))
    turn.set(paused_s=0.0)
    turn.do(Form(order, (*order.view.members, *leaving)))
