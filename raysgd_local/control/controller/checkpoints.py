"""The controller's books on checkpoints: which are being written, which stand, which go."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from raysgd_local.algorithms.placement.table import Placement
from raysgd_local.algorithms.schedules.base import Schedule
from raysgd_local.control.controller.events import ShardWritten
from raysgd_local.control.controller.settings import CheckpointPolicy
from raysgd_local.control.data.deal import Deal
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.marks import mark
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.errors import CheckpointError
from raysgd_local.serialization import from_plain, to_plain

SCHEMA = 1
URGENT_EVERY_S = 5.0
"""How much training is lost at most when all who have the state leave at an announced time."""
_RETRY_S, _RETRY_MAX_S = 0.5, 60.0


@dataclass(frozen=True)
class CheckpointRecord:
    """What a checkpoint says of the run; the workers' shards hold the rest.

    `members` are the view's, in rank order: shard i is of rank i; with `everyone` there is one for each.
    """

    name: str
    view: int
    incarnation: int
    members: tuple[str, ...]
    everyone: bool
    replicated: Replicated
    ledger: Ledger
    deal: Deal | None
    placement: Placement | None

    @property
    def writers(self) -> tuple[str, ...]:
        return self.members if self.everyone else self.members[:1]


def manifest(snapshot: CheckpointRecord, shards: tuple[ShardWritten, ...]) -> dict[str, Any]:
    """The manifest's content: JSON-able, everything but the tensors."""
    files = [
        {"rank": s.rank, "path": s.path, "sha256": s.sha256, "bytes": s.size_bytes}
        for s in sorted(shards, key=lambda s: s.rank)
    ]
    return {"schema": SCHEMA, "shards": files, **to_plain(snapshot)}


def snapshot_of(plain: dict[str, Any], schedule: Schedule) -> CheckpointRecord:
    """The snapshot that a manifest's content describes, for a run with this schedule.

    Raises `CheckpointError` where the manifest is of another schema or another kind of schedule.
    """
    if plain.get("schema") != SCHEMA:
        raise CheckpointError(
            f"checkpoint schema {plain.get('schema')!r} is not {SCHEMA}, which this version reads"
        )
    fields = {key: value for key, value in plain.items() if key not in ("schema", "shards")}
    try:
        snapshot = from_plain(CheckpointRecord, fields)
        state = schedule.restore(fields["replicated"]["schedule"])
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise CheckpointError(f"the checkpoint does not fit this run's schedule: {error}") from error
    return replace(snapshot, replicated=replace(snapshot.replicated, schedule=state))


@dataclass(frozen=True)
class Writing:
    snapshot: CheckpointRecord
    shards: tuple[ShardWritten, ...] = ()
    final: bool = False

    @property
    def complete(self) -> bool:
        return not self.missing

    @property
    def missing(self) -> set[str]:
        """Who did not write its part yet."""
        return set(self.snapshot.writers) - {s.worker for s in self.shards}


@dataclass(frozen=True)
class Saves:
    """Checkpoints that are being written and those that stand, oldest first.

    `epoch`, `round`, `elapsed_s` are where the newest one was begun. `failures` in a row could not be written; where
    one is owed because of that, it is due at `retry_s` of training. `over`: the run's last one stands.
    """

    count: int = 0
    writing: dict[str, Writing] = field(default_factory=dict)
    published: tuple[CheckpointRecord, ...] = ()
    epoch: int = 0
    round: int = 0
    elapsed_s: float = 0.0
    failures: int = 0
    retry_s: float | None = None
    over: bool = False

    def due(self, state: Replicated, policy: CheckpointPolicy, urgent: bool = False) -> bool:
        """Whether the policy asks for a checkpoint now (one at a time), or those who have the state will leave."""
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
        """Whether the run's last one is being written."""
        return any(entry.final for entry in self.writing.values())

    def begin(self, snapshot: CheckpointRecord, final: bool) -> Saves:
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
        entry = self.writing.get(shard.name)
        if entry is None or shard.worker in {known.worker for known in entry.shards}:
            return self
        entry = replace(entry, shards=(*entry.shards, shard))
        return replace(self, writing={**self.writing, shard.name: entry})

    def publish(self, name: str) -> Saves:
        if name not in self.writing:
            return self
        entry = self.writing[name]
        published = tuple(sorted((*self.published, entry.snapshot), key=lambda snapshot: snapshot.name))
        over = self.over or entry.final
        return replace(self._without(name), published=published, failures=0, retry_s=None, over=over)

    @property
    def wait_s(self) -> float:
        """How long to wait until the next attempt after as many failures."""
        return min(_RETRY_MAX_S, _RETRY_S * 2.0**self.failures)

    def failed(self, name: str) -> Saves:
        """It can't be written: another is due some time later, each time later still."""
        begun_s = self.writing[name].snapshot.replicated.elapsed_s
        retry_s = begun_s + self.wait_s
        return replace(self._without(name), failures=self.failures + 1, retry_s=retry_s)

    def incomplete(self, name: str) -> Saves:
        """Somebody's part will never come: another is due at once."""
        return replace(self._without(name), retry_s=0.0)

    def _without(self, name: str) -> Saves:
        return replace(self, writing={n: w for n, w in self.writing.items() if n != name})

    def abandoned(self) -> Saves:
        """The run goes back to a checkpoint that stands: what is being written belongs to what did not happen."""
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
        """A checkpoint turned out to be damaged: those before it are what there is."""
        return replace(self, published=tuple(s for s in self.published if s.name != name))

    def awaiting(self, worker: str, since: str = "") -> tuple[str, ...]:
        """The checkpoints newer than `since` that lack this worker's part."""
        return tuple(name for name, w in self.writing.items() if worker in w.missing and name > since)

    def pruned(self, policy: CheckpointPolicy) -> tuple[Saves, tuple[str, ...]]:
        """The books without what `keep` gives up, and its names. The newest stays: it is what one resumes."""
        if policy.keep is None or len(self.published) <= policy.keep:
            return self, ()
        newest = self.published[-1]
        ranked = sorted(self.published[:-1], key=lambda s: _worth(s, policy), reverse=True)
        kept = {s.name for s in ranked[: max(0, policy.keep - 1)]} | {newest.name}
        gone = tuple(s.name for s in self.published if s.name not in kept)
        return replace(self, published=tuple(s for s in self.published if s.name in kept)), gone


def _worth(snapshot: CheckpointRecord, policy: CheckpointPolicy) -> tuple[float, int]:
    score = dict(snapshot.replicated.metrics).get(policy.score or "", 0.0)
    return (score if policy.score_order == "max" else -score), snapshot.replicated.round
