"""How a run ends, and the checkpoints on the way: every run finishes, fails with a reason, or is interrupted."""

from __future__ import annotations

from collections.abc import Sequence

from raysgd_local.control import boundary
from raysgd_local.control.controller_events import (
    DeleteCheckpoint,
    Finish,
    PublishManifest,
    ShardWritten,
    Status,
)
from raysgd_local.control.controller_state import Phase, Turn
from raysgd_local.control.protocol import Place, Report
from raysgd_local.control.saves import manifest

Ends = tuple[Status, str, bool]  # status, reason, whether to save


def reason_to_end(turn: Turn, reports: Sequence[Report]) -> Ends | None:
    """Whether the run ends at this boundary: how, why, and whether with a checkpoint."""
    state = turn.state
    if state.books is None or state.errors:
        return None
    if state.books.replicated.diverged:
        return "failed", state.books.replicated.stopped, False
    drained = boundary.drained(reports)
    if state.stop and drained:
        return "interrupted", state.stop, True
    if all(report.place is Place.FINISHED for report in reports):
        return "finished", state.books.replicated.stopped or "all epochs are done", True
    return None


def await_end(turn: Turn, status: Status, reason: str) -> None:
    """The last order is given: the run ends when what it asked to be written is."""
    turn.set(phase=Phase.FINISHING, outcome=(status, reason))
    turn.set_timer("finish", turn.state.settings.timeouts.finish_s)
    check_finished(turn)


def check_finished(turn: Turn) -> None:
    if turn.state.phase is Phase.FINISHING and turn.state.outcome and not turn.state.saves.writing:
        finish(turn, *turn.state.outcome)


def finish_expired(turn: Turn) -> None:
    if turn.state.phase is Phase.FINISHING and turn.state.outcome:
        turn.record("checkpoint_failed", reason="the last checkpoint was not written in time")
        finish(turn, *turn.state.outcome)


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
    if entry is not None and entry.complete and saves is not before:
        turn.do(PublishManifest(shard.name, manifest(entry.snapshot, entry.shards)))


def published(turn: Turn, name: str) -> None:
    """The checkpoint stands; older ones go by the policy."""
    entry = turn.state.saves.writing.get(name)
    if entry is None:
        if name not in {snapshot.name for snapshot in turn.state.saves.published}:
            turn.do(DeleteCheckpoint(name))  # given up meanwhile: nobody may go back to it
        return
    saves, gone = turn.state.saves.publish(name).pruned(turn.state.settings.checkpoints)
    turn.set(saves=saves)
    turn.record("checkpoint_written", checkpoint=name, round=entry.snapshot.replicated.round)
    for old in gone:
        turn.do(DeleteCheckpoint(old))
    check_finished(turn)


def checkpoint_failed(turn: Turn, name: str, reason: str) -> None:
    """Training goes on without this checkpoint; the next one is due as if it had been written."""
    turn.set(saves=turn.state.saves.drop(name))
    turn.record("checkpoint_failed", checkpoint=name, reason=reason)
    check_finished(turn)
