"""The course of a checkpoint: shards are written, the manifest is published; or it fails, or is found damaged."""

from __future__ import annotations

from dataclasses import replace

from raysgd_local.control.controller.checkpoints import CheckpointRecord, Saves, manifest
from raysgd_local.control.controller.events import DeleteCheckpoint, PublishManifest, ShardWritten
from raysgd_local.control.controller.state import Turn
from raysgd_local.control.marks import mark
from raysgd_local.control.run_events import EventName


def shard_written(turn: Turn, shard: ShardWritten) -> None:
    """A member wrote its shard. After the last shard, publish the manifest."""
    before = turn.state.saves
    saves = before.wrote(shard)
    turn.set(saves=saves)
    entry = saves.writing.get(shard.name)
    if entry is None:
        _discard(turn, shard.name)
    elif entry.complete and saves is not before:
        turn.do(PublishManifest(shard.name, manifest(entry.snapshot, entry.shards)))


def _discard(turn: Turn, name: str) -> None:
    """Delete a checkpoint that was given up meanwhile, so that no resume finds it."""
    if name not in {snapshot.name for snapshot in turn.state.saves.published}:
        mark("late_part_of_an_abandoned_checkpoint")
        turn.do(DeleteCheckpoint(name))


def published(turn: Turn, name: str) -> None:
    """The checkpoint's manifest is written. Delete older checkpoints as the policy says."""
    entry = turn.state.saves.writing.get(name)
    if entry is None:
        _discard(turn, name)
        return
    saves, gone = turn.state.saves.publish(name).pruned(turn.state.settings.checkpoints)
    turn.set(saves=saves)
    turn.record(EventName.CHECKPOINT_WRITTEN, checkpoint=name, round=entry.snapshot.replicated.round)
    _tell_unscored(turn, entry.snapshot)
    for old in gone:
        turn.do(DeleteCheckpoint(old))


def _tell_unscored(turn: Turn, snapshot: CheckpointRecord) -> None:
    """Record, once, that no evaluation reports the metric by which checkpoints are to be kept: it may be a typo."""
    saves, policy = turn.state.saves, turn.state.settings.checkpoints
    if saves.lacks_score(snapshot, policy):
        turn.set(saves=replace(saves, unscored=True))
        there = [name for name, _ in snapshot.replicated.metrics]
        turn.record(EventName.CHECKPOINT_UNSCORED, checkpoint=snapshot.name, score=policy.score, metrics=there)


def checkpoint_failed(turn: Turn, name: str, reason: str) -> None:
    """Train on without this checkpoint and try another one later: the last one after a delay, others at a boundary."""
    saves = turn.state.saves
    if name not in saves.writing:
        return
    mark("checkpoint_not_written")
    _give_up(turn, saves.failed(name), name, reason)
    if turn.state.outcome is not None:
        turn.set_timer("save", saves.wait_s)


def parts_missing(turn: Turn, worker: str, why: str, since: str = "") -> None:
    """Give up the checkpoints newer than `since` that lack this worker's shard: it will never be written."""
    for name in turn.state.saves.awaiting(worker, since):
        mark("checkpoint_lost_a_writer")
        _give_up(turn, turn.state.saves.incomplete(name), name, f"{worker} {why}")


def damaged(turn: Turn, name: str, why: str) -> None:
    """A published checkpoint can't be loaded: fall back to the one before. Recorded once."""
    saves = turn.state.saves.without(name)
    if saves != turn.state.saves:
        mark("damaged_checkpoint")
        turn.set(saves=saves)
        turn.record(EventName.CHECKPOINT_DAMAGED, checkpoint=name, reason=why)


def _give_up(turn: Turn, saves: Saves, name: str, reason: str) -> None:
    turn.set(saves=saves)
    turn.record(EventName.CHECKPOINT_FAILED, checkpoint=name, reason=reason)
    turn.do(DeleteCheckpoint(name))
