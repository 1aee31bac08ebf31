"""The controller's record of checkpoints: those being written, those published, those to be deleted."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from raysgd_local.algorithms.placement.table import Placement
from raysgd_local.algorithms.schedules.base import Schedule
from raysgd_local.control.controller.consistency import (
    contradiction,
    contradiction_of_lengths,
    contradiction_of_period,
)
from raysgd_local.control.controller.events import ShardWritten
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.control.data.deal import Deal
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.data.streams.lengths import Lengths
from raysgd_local.control.marks import mark
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.errors import CheckpointError
from raysgd_local.serialization import from_plain, to_plain

SCHEMA = 2
"""The schema of the manifests that this version writes. It reads schema 1 too, in which some fields had other names."""

URGENT_EVERY_S = 5.0
"""Time between checkpoints while a member leaves: bounds the training lost if all members with the state leave."""
_RETRY_S, _RETRY_MAX_S = 0.5, 60.0

NAME = re.compile("[0-9]{6,}")
"""Matches names of checkpoints: their numbers."""


@dataclass(frozen=True)
class CheckpointRecord:
    """The controller's part of a checkpoint; the members' shards hold the tensors."""

    name: str
    view: int  # in which it was begun
    incarnation: int  # in which it was begun
    members: tuple[str, ...]  # of the view, in rank order: shard i is of rank i
    everyone: bool  # there is a shard of each member, not of rank 0 alone
    replicated: Replicated  # the resolved state
    ledger: Ledger | StreamLedger  # consumed samples of the open epoch
    deal: Deal | StreamDeal | None  # of the open epoch; None while no epoch is open
    placement: Placement | None  # of chunks on workers; None before the first deal
    found: Lengths = ()  # of a stream's shards, since the deal was made

    @property
    def writers(self) -> tuple[str, ...]:
        """The members that write a shard."""
        return self.members if self.everyone else self.members[:1]


def manifest(snapshot: CheckpointRecord, shards: tuple[ShardWritten, ...]) -> dict[str, Any]:
    """Return the manifest's content, as plain (JSON) values: all of the checkpoint but the tensors."""
    files = [
        {"rank": s.rank, "path": s.path, "sha256": s.sha256, "bytes": s.size_bytes}
        for s in sorted(shards, key=lambda s: s.rank)
    ]
    return {"schema": SCHEMA, "shards": files, **to_plain(snapshot)}


def record_of(plain: Any) -> CheckpointRecord:
    """Return the checkpoint's record from a manifest's content. Its schedule's state stays in the plain form.

    Raises `CheckpointError` if the content has an unknown schema, or is none that a run writes.
    """
    schema = plain.get("schema") if isinstance(plain, dict) else None
    if schema not in (1, SCHEMA) or isinstance(schema, bool):
        raise CheckpointError(f"checkpoint schema {schema!r} is not 1 or {SCHEMA}, which this version reads")
    fields = {key: value for key, value in plain.items() if key not in ("sha256", "schema", "shards")}
    try:
        record = from_plain(CheckpointRecord, _from_schema1(fields) if schema == 1 else fields)
        wrong = contradiction(record.members, record.replicated, record.ledger, record.deal, record.placement)
        wrong = wrong or contradiction_of_lengths(record.ledger, record.found)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as error:
        raise CheckpointError(f"the manifest is not one that a run writes: {error}") from error
    if not NAME.fullmatch(record.name) or min(record.view, record.incarnation) < 1:
        wrong = f"name {record.name!r}, view {record.view}, incarnation {record.incarnation}"
    if wrong:
        raise CheckpointError(f"the manifest contradicts itself: {wrong}")
    return record


def snapshot_of(plain: Any, schedule: Schedule) -> CheckpointRecord:
    """Return the checkpoint's record from a manifest's content, for a run with this schedule.

    Raises `CheckpointError` as `record_of` does, and for the state of another kind of schedule.
    """
    snapshot = record_of(plain)
    try:
        state = schedule.restore(snapshot.replicated.schedule)
        wrong = contradiction_of_period(state.period)
    except Exception as error:  # a schedule may be the user's
        raise CheckpointError(f"the checkpoint does not fit this run's schedule: {error!r}") from error
    if wrong:
        raise CheckpointError(f"the manifest contradicts itself: {wrong}")
    return replace(snapshot, replicated=replace(snapshot.replicated, schedule=state))


def _from_schema1(fields: dict[str, Any]) -> dict[str, Any]:
    state, deal = fields["replicated"], fields["deal"]
    return {
        **fields,
        "replicated": renamed(state, "left", "left_epoch"),
        "deal": deal and renamed(deal, "restricted", "local_data"),
    }


def renamed(plain: dict[str, Any], before: str, after: str) -> dict[str, Any]:
    """Return the same record with one field renamed."""
    return {after if key == before else key: value for key, value in plain.items()}


@dataclass(frozen=True)
class Writing:
    """A checkpoint that is being written."""

    snapshot: CheckpointRecord
    shards: tuple[ShardWritten, ...] = ()  # written so far
    final: bool = False  # the run's last checkpoint

    @property
    def complete(self) -> bool:
        """Whether every shard is written."""
        return not self.missing

    @property
    def missing(self) -> set[str]:
        """The members that have not written their shard yet."""
        return set(self.snapshot.writers) - {s.worker for s in self.shards}


@dataclass(frozen=True)
class Saves:
    """The run's checkpoints."""

    count: int = 0  # checkpoints begun so far; names the next one
    writing: dict[str, Writing] = field(default_factory=dict)  # by name
    published: tuple[CheckpointRecord, ...] = ()  # oldest first
    epoch: int = 0  # at which the newest checkpoint was begun
    round: int = 0  # at which the newest checkpoint was begun
    elapsed_s: float = 0.0  # training time at which the newest checkpoint was begun
    failures: int = 0  # checkpoints in a row that could not be written
    retry_s: float | None = None  # training time at which to try again after a failure
    over: bool = False  # the run's last checkpoint is published
    unscored: bool = False  # it was told that evaluations lack the score

    def due(self, state: Replicated, policy: CheckpointPolicy, urgent: bool = False) -> bool:
        """Whether to begin a checkpoint: one at a time, by the policy, or oftener while a member leaves (`urgent`)."""
        if self.writing:
            return False
        if urgent and state.round > self.round and state.elapsed_s - self.elapsed_s >= URGENT_EVERY_S:
            mark("urgent_checkpoint")
            return True
        if self.retry_s is not None and state.elapsed_s >= self.retry_s:
            return True
        by_epoch = policy.every_epochs is not None and state.epoch - self.epoch >= policy.every_epochs
        by_time = policy.every_s is not None and state.elapsed_s - self.elapsed_s >= policy.every_s
        return by_epoch or by_time

    @property
    def ending(self) -> bool:
        """Whether the run's last checkpoint is being written."""
        return any(entry.final for entry in self.writing.values())

    def begin(self, snapshot: CheckpointRecord, final: bool) -> Saves:
        """Begin a checkpoint."""
        return replace(
            self,
            count=self.count + 1,
            writing={**self.writing, snapshot.name: Writing(snapshot, final=final)},
            epoch=snapshot.replicated.epoch,
            round=snapshot.replicated.round,
            elapsed_s=snapshot.replicated.elapsed_s,
            retry_s=None,
        )

    def wrote(self, shard: ShardWritten) -> Saves:
        """Enter a written shard. Ignore one that was entered before, or that belongs to no checkpoint in writing."""
        entry = self.writing.get(shard.name)
        if entry is None or shard.worker in {known.worker for known in entry.shards}:
            return self
        entry = replace(entry, shards=(*entry.shards, shard))
        return replace(self, writing={**self.writing, shard.name: entry})

    def publish(self, name: str) -> Saves:
        """Enter a checkpoint whose manifest is written."""
        if name not in self.writing:
            return self
        entry = self.writing[name]
        published = tuple(sorted((*self.published, entry.snapshot), key=lambda snapshot: snapshot.name))
        over = self.over or entry.final
        return replace(self._without(name), published=published, failures=0, retry_s=None, over=over)

    @property
    def wait_s(self) -> float:
        """The delay before the next attempt, which doubles with each failure in a row."""
        return min(_RETRY_MAX_S, _RETRY_S * 2.0**self.failures)

    def failed(self, name: str) -> Saves:
        """Drop a checkpoint that can't be written: try again later, after each further failure later still."""
        begun_s = self.writing[name].snapshot.replicated.elapsed_s
        retry_s = begun_s + self.wait_s
        return replace(self._without(name), failures=self.failures + 1, retry_s=retry_s)

    def incomplete(self, name: str) -> Saves:
        """Drop a checkpoint of which a shard will never be written: try again at once."""
        return replace(self._without(name), retry_s=0.0)

    def _without(self, name: str) -> Saves:
        return replace(self, writing={n: w for n, w in self.writing.items() if n != name})

    def abandoned(self) -> Saves:
        """Drop the checkpoints being written: the run goes back to a published one, and their state is lost."""
        newest = self.published[-1].replicated if self.published else None
        return replace(
            self,
            writing={},
            retry_s=None,
            epoch=newest.epoch if newest else 0,
            round=newest.round if newest else 0,
            elapsed_s=newest.elapsed_s if newest else 0.0,
        )

    def without(self, name: str) -> Saves:
        """Drop a checkpoint that turned out to be damaged."""
        return replace(self, published=tuple(s for s in self.published if s.name != name))

    def lacks_score(self, snapshot: CheckpointRecord, policy: CheckpointPolicy) -> bool:
        """Whether to tell, for the first time, that evaluations do not report the score."""
        state = snapshot.replicated
        lacks = policy.score is not None and policy.score not in dict(state.metrics)
        return lacks and state.evaluations > 0 and not self.unscored and not scored(self.published, policy)

    def awaiting(self, worker: str, since: str = "") -> tuple[str, ...]:
        """Return the checkpoints newer than `since` that lack this worker's shard."""
        return tuple(name for name, w in self.writing.items() if worker in w.missing and name > since)

    def pruned(self, policy: CheckpointPolicy) -> tuple[Saves, tuple[str, ...]]:
        """Apply `keep`; also return the names of the checkpoints to delete.

        With a score the best are kept, and the newest beside them: a resume needs it.
        """
        if policy.keep is None:
            return self, ()
        best = ranked(self.published, policy)[-policy.keep :]
        kept = {s.name for s in (*best, *self.published[-1:])}
        gone = tuple(s.name for s in self.published if s.name not in kept)
        return replace(self, published=tuple(s for s in self.published if s.name in kept)), gone


def ranked(published: Sequence[CheckpointRecord], policy: CheckpointPolicy) -> tuple[CheckpointRecord, ...]:
    """Sort checkpoints, oldest first, by the policy's score: the best last. Without a score the newest is the best.

    Those that have no score come before all that have, the newest of them last.
    """
    scores = scored(published, policy)
    return tuple(sorted(published, key=lambda s: (s.name in scores, scores.get(s.name, 0.0), s.name)))


def scored(published: Sequence[CheckpointRecord], policy: CheckpointPolicy) -> dict[str, float]:
    """Return the score of each checkpoint that has one, by name; higher is better.

    A missing metric and one that is not finite are no scores. An evaluation judges the first checkpoint after it: a
    later one, without an evaluation in between, has another model.
    """
    found, judged = {}, 0
    for snapshot in published:
        state = snapshot.replicated
        value = dict(state.metrics).get(policy.score or "", math.nan)
        if state.evaluations > judged and math.isfinite(value):
            found[snapshot.name] = value if policy.score_order == "max" else -value
        judged = max(judged, state.evaluations)
    return found
