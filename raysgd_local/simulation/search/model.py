"""A model small enough to compare exactly: a number that learns, a 1 that must stay 1, and the samples in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.messages import worker_number
from raysgd_local.simulation.engine.loop import Taken
from raysgd_local.simulation.search.methods import Moved

_LR, _MOMENTUM = 0.05, 0.9


@dataclass(frozen=True)
class NumberAnchor:
    """The state after a commit."""

    round: int = 0
    x: float = 0.0  # the number that learns
    one: float = 1.0  # averaged like a parameter and never trained: it stays 1 if weights sum to 1
    velocity: float = 0.0  # momentum of the outer step
    consumed: tuple[tuple[int, bytes], ...] = ()  # by epoch, counts of each sample (bytes)

    def times(self, epoch: int) -> bytes:
        """Return how often each sample of `epoch` was consumed; empty if none was."""
        return dict(self.consumed).get(epoch, b"")


@dataclass(frozen=True)
class Reduced:
    """The result of a round's reduction."""

    mode: Mode
    weight: float  # sum of all members' weights
    x_sum: float  # weighted sum
    one_sum: float  # weighted sum
    taken: tuple[Taken, ...]  # samples of all members
    moved: Moved | None = None  # each member's new state; None if gradients were averaged

    @property
    def finite(self) -> bool:
        return math.isfinite(self.x_sum)


@dataclass(frozen=True)
class Part:
    """One member's part of a round's reduction."""

    mode: Mode
    weight: float
    x: float  # its number, or its gradient
    one: float
    taken: tuple[Taken, ...]  # samples since the last commit
    start: float = 0.0  # its number at the round's begin
    residual: float = 0.0  # of compression

    @property
    def finite(self) -> bool:
        return math.isfinite(self.x)


def reduce_parts(parts: Sequence[Part], weight: float) -> Reduced:
    """Return the weighted sum, to be divided by `weight`.

    A member whose state is not finite has the weight 0, but its samples count as consumed.
    """
    good = [part for part in parts if part.finite and part.weight]
    return Reduced(
        parts[0].mode,
        weight,
        math.fsum(part.weight * part.x for part in good),
        math.fsum(part.weight * part.one for part in good),
        tuple(taken for part in parts for taken in part.taken),
    )


def commit(anchor: NumberAnchor, reduced: Reduced, x: float) -> NumberAnchor:
    """Return the anchor after a round. `x` is the new number, averaged or stepped jointly already."""
    one = reduced.one_sum / reduced.weight if reduced.weight and reduced.mode != "gradients" else anchor.one
    velocity = reduced.moved.velocity if reduced.moved is not None else 0.0
    return NumberAnchor(anchor.round + 1, x, one, velocity, _add(anchor.consumed, reduced.taken))


def _add(consumed: tuple[tuple[int, bytes], ...], taken: Sequence[Taken]) -> tuple[tuple[int, bytes], ...]:
    if not taken:
        return consumed
    counts = {epoch: bytearray(times) for epoch, times in consumed}
    for epoch, positions in taken:
        if positions:
            entry = counts.setdefault(epoch, bytearray())
            entry.extend(bytes(max(0, max(positions) + 1 - len(entry))))
            for position in positions:
                entry[position] += 1
    return tuple(sorted((epoch, bytes(times).rstrip(b"\0")) for epoch, times in counts.items()))


@dataclass(frozen=True)
class Shard:
    """One worker's part of a checkpoint."""

    anchor: NumberAnchor
    x: float
    momentum: float  # of local steps
    residual: float = 0.0
    apart: bool = False  # `x` may differ from the anchor's


@dataclass
class NumberReplica:
    """One worker's replica."""

    anchor: NumberAnchor
    x: float = 0.0
    momentum: float = 0.0  # of local steps
    gradient: float = 0.0  # of the newest batch
    taken: list[Taken] = field(default_factory=list)  # samples since the last commit or launch
    kept: Reduced | None = None  # newest committed reduction, to heal others
    tried: Reduced | None = None  # newest reduction
    start: float = 0.0  # `x` at the round's begin
    residual: float = 0.0  # of compression
    apart: bool = False  # `x` may differ from the anchor's
    flown: tuple[float, list[Taken]] | None = None  # number and samples of the exchange in flight

    def launch(self) -> None:
        """Set the present state apart for an exchange in flight."""
        self.flown, self.taken = (self.x, self.taken), []

    def land(self) -> None:
        """Take back the samples of the exchange in flight, because it is lost."""
        if self.flown is not None:
            self.taken, self.flown = [*self.flown[1], *self.taken], None

    def compute(self, taken: Sequence[Taken]) -> None:
        """Compute a gradient over these samples. They are consumed once a committed round contains it."""
        positions = [position for _, of_epoch in taken for position in of_epoch]
        target = sum(positions) / len(positions) / 100 if positions else 0.5
        self.gradient = self.x - target
        self.taken.extend(taken)

    def pass_over(self, taken: Sequence[Taken]) -> None:
        """Consume rows of a stream of which no sample was made."""
        self.taken.extend(taken)

    def local_step(self) -> None:
        self.momentum = _MOMENTUM * self.momentum + self.gradient
        self.x -= _LR * self.momentum

    def part(self, mode: Mode, weight: float) -> Part:
        value = self.gradient if mode == "gradients" else self.x
        return Part(mode, weight, value, self.anchor.one, tuple(self.taken), self.start, self.residual)

    def commit(self, reduced: Reduced, rank: int, then: Mode) -> None:
        """Install the result of a round in which this member had the rank `rank`."""
        moved, place = reduced.moved, self.anchor.x
        since, taken = (self.x - self.flown[0], self.taken) if self.flown is not None else (0.0, [])
        if moved is not None:
            self.x, place = moved.own[rank], moved.anchor
            self.residual = moved.residuals[rank]
            self.apart = self.apart if moved.apart is None else moved.apart
        elif reduced.weight:
            self.x, self.gradient = self.anchor.x, reduced.x_sum / reduced.weight
            self.local_step()
            place, self.apart = self.x, False
        if (reduced.mode == "gradients") != (then == "gradients"):
            self.residual = 0.0
        self.anchor = commit(self.anchor, reduced, place)
        if since and math.isfinite(since):
            self.x += since
        self.kept, self.taken, self.start, self.flown = reduced, taken, self.x, None

    def shard(self) -> Shard:
        return Shard(self.anchor, self.x, self.momentum, self.residual, self.apart)

    def load(self, shard: Shard, own: bool = False) -> None:
        """Load another member's state, or this rank's `own` from a checkpoint."""
        self.anchor, self.momentum = shard.anchor, shard.momentum
        self.x, self.residual = (shard.x, shard.residual) if own else (shard.anchor.x, 0.0)
        self.apart, self.start, self.taken, self.flown = shard.apart, self.x, [], None

    def loss(self) -> float:
        return loss_at(self.anchor.x)

    def shown(self, reduced: Reduced | None) -> float:
        """Return the number that an evaluation shows: the committed one, or what committing `reduced` would make."""
        return self.anchor.x if reduced is None or reduced.moved is None else reduced.moved.anchor


def loss_at(x: float) -> float:
    """Return the loss of a model."""
    return (x - 0.3) ** 2 + 0.05


def fresh(worker: str) -> NumberReplica:
    """Return a new replica, whose number differs from every other worker's."""
    x = 1.0 + worker_number(worker) / 64
    return NumberReplica(replace(NumberAnchor(), x=x), x=x, start=x)
