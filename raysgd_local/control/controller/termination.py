"""How a run ends, and the checkpoints on the way: every run finishes, fails with a reason, or is interrupted."""

from __future__ import annotations

from collections.abc import Sequence

from raysgd_local.control.controller import boundary
from raysgd_local.control.controller.checkpoints import Saves, manifest
from raysgd_local.control.controller.events import DeleteCheckpoint, Finish, PublishManifest, ShardWritten, Status
from raysgd_local.control.controller.state import Phase, Turn
from raysgd_local.control.marks import mark
from raysgd_local.control.messages import LoopPosition, Report

Ends = tuple[Status, str, bool]  # status, reason, whether to save


def reason_to_end(turn: Turn, reports: Sequence[Report]) -> Ends | None:
    """Whether the run ends at this boundary: how, why, and whether with a checkpoint."""
    state = turn.state
    if state.books is None or state.errors:
        return None
    if state.books.replicated.diverged:
        return "failed", state.books.replicated.stopped, False
    drained = boundary.drained(reports)
    mark("stop_waits_for_pending_steps", bool(state.stop) and not drained)
    if state.stop and drained:
        return "interrupted", state.stop, True
    if all(report.place is LoopPosition.FINISHED for report in reports):
        return "finished", state.books.replicated.stopped or "all epochs are done", True
    return None


def check_finished(turn: Turn) -> None:
    """The run ends when nobody is left of those who end by themselves."""
    if turn.state.phase is Phase.FINISHING and turn.state.outcome and not turn.state.members:
        finish(turn, *turn.state.outcome)


def exit_expired(turn: Turn) -> None:
    if turn.state.phase is Phase.FINISHING and turn.state.outcome:
        finish(turn, *turn.state.outcome)


def finish_expired(turn: Turn) -> None:
    """The last checkpoint can't be had: what was trained last is lost, and that is no success."""
    if turn.state.outcome is None or turn.state.phase is Phase.FINISHING:
        return
    status, reason = turn.state.outcome
    mark("last_checkpoint_given_up")
    late = f"the last checkpoint was not written within {turn.state.settings.timeouts.finish_s:g} s"
    turn.record("checkpoint_failed", reason=late)
    finish(turn, "lost" if status == "finished" else status, f"{reason}, but {late}")


def finish(turn: Turn, status: Status, reason: str, error: str = "", ranks: tuple[int, ...] = ()) -> None:
    turn.set(phase=Phase.ENDED)
    turn.do(Finish(status, reason, error, ranks))


def pause_expired(turn: Turn) -> None:
    if turn.state.phase is Phase.PAUSED:
        limit_s = turn.state.settings.timeouts.pause_s
        finish(turn, "lost", f"fewer than {turn.state.settings.workers_min} workers for {limit_s:g} s")


def shard_written(turn: Turn, shard: ShardWritten) -> None:
    before = turn.state.saves
    saves = before.wrote(shard)
    turn.set(saves=saves)
    entry = saves.writing.get(shard.name)
    if entry is None:
        _discard(turn, shard.name)
    elif entry.complete and saves is not before:
        turn.do(PublishManifest(shard.name, manifest(entry.snapshot, entry.shards)))


def _discard(turn: Turn, name: str) -> None:
    """Of a checkpoint that was given up meanwhile nothing stays: nobody may go back to it."""
    if name not in {snapshot.name for snapshot in turn.state.saves.published}:
        mark("late_part_of_an_abandoned_checkpoint")
        turn.do(DeleteCheckpoint(name))


def published(turn: Turn, name: str) -> None:
    """The checkpoint stands; older ones go by the policy."""
    entry = turn.state.saves.writing.get(name)
    if entry is None:
        _discard(turn, name)
        return
    saves, gone = turn.state.saves.publish(name).pruned(turn.state.settings.checkpoints)
    turn.set(saves=saves)
    turn.record("checkpoint_written", checkpoint=name, round=entry.snapshot.replicated.round)
    for old in gone:
        turn.do(DeleteCheckpoint(old))


def checkpoint_failed(turn: Turn, name: str, reason: str) -> None:
    """Training goes on without this checkpoint; another is tried some time later, the last one by the clock."""
    saves = turn.state.saves
    if name not in saves.writing:
        return
    mark("checkpoint_not_written")
    _give_up(turn, saves.failed(name), name, reason)
    if turn.state.outcome is not None:
        turn.set_timer("save", saves.wait_s)


def parts_missing(turn: Turn, worker: str, why: str, since: str = "") -> None:
    """This worker's parts of checkpoints newer than `since` will never be written."""
    for name in turn.state.saves.awaiting(worker, since):
        mark("checkpoint_lost_a_writer")
        _give_up(turn, turn.state.saves.incomplete(name), name, f"{worker} {why}")


def damaged(turn: Turn, name: str, why: str) -> None:
    """A checkpoint that was written can't be loaded: the one before has to do. Told once."""
    saves = turn.state.saves.without(name)
    if saves != turn.state.saves:
        mark("damaged_checkpoint")
        turn.set(saves=saves)
        turn.record("checkpoint_damaged", checkpoint=name, reason=why)


def _give_up(turn: Turn, saves: Saves, name: str, reason: str) -> None:
    turn.set(saves=saves)
    turn.record("checkpoint_failed", checkpoint=name, reason=reason)
    turn.do(DeleteCheckpoint(name))
