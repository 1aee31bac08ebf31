"""A model small enough to be compared exactly: a number that learns, a one that must stay one, and what it saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.messages import worker_number
from raysgd_local.simulation.search.methods import Moved

_LR, _MOMENTUM = 0.05, 0.9

Taken = tuple[int, tuple[int, ...]]  # epoch, positions


@dataclass(frozen=True)
class NumberAnchor:
    """The state after a commit. `consumed` says, by epoch, how often each sample is in it (a byte a sample).

    `one` is averaged like a parameter and never trained: it stays 1 if weights sum to 1. `velocity` is the outer
    step's.
    """

    round: int = 0
    x: float = 0.0
    one: float = 1.0
    velocity: float = 0.0
    consumed: tuple[tuple[int, bytes], ...] = ()

    def times(self, epoch: int) -> bytes:
        """How often each sample of `epoch` was consumed; empty if none was."""
        return dict(self.consumed).get(epoch, b"")


@dataclass(frozen=True)
class Reduced:
    """What came of a round: the sum over all members, or with parameters what each becomes; and what it is made of."""

    mode: Mode
    weight: float
    x_sum: float
    one_sum: float
    taken: tuple[Taken, ...]
    moved: Moved | None = None

    @property
    def finite(self) -> bool:
        return math.isfinite(self.x_sum)


@dataclass(frozen=True)
class Part:
    """One member's part of a sum."""

    mode: Mode
    weight: float
    x: float
    one: float
    taken: tuple[Taken, ...]
    start: float = 0.0
    residual: float = 0.0

    @property
    def finite(self) -> bool:
        return math.isfinite(self.x)


def reduce_parts(parts: Sequence[Part], weight: float) -> Reduced:
    """The weighted sum, and the `weight` that it will be divided by.

    Who is not finite counts for nothing, but what it consumed is consumed.
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
    """The anchor after a round; `x` is the number as it is now (averaged already, or stepped together)."""
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
    """What a checkpoint keeps of one worker."""

    anchor: NumberAnchor
    x: float
    momentum: float
    residual: float = 0.0
    apart: bool = False


@dataclass
class NumberReplica:
    """One worker's copy: the anchor, its own steps since, and the vectors that heal others."""

    anchor: NumberAnchor
    x: float = 0.0
    momentum: float = 0.0
    gradient: float = 0.0
    taken: list[Taken] = field(default_factory=list)
    kept: Reduced | None = None
    tried: Reduced | None = None
    start: float = 0.0
    residual: float = 0.0
    apart: bool = False
    flown: tuple[float, list[Taken]] | None = None

    def launch(self) -> None:
        """What it is now travels, and it goes on."""
        self.flown, self.taken = (self.x, self.taken), []

    def land(self) -> None:
        """What travels is lost with the view: all is this member's own again."""
        if self.flown is not None:
            self.taken, self.flown = [*self.flown[1], *self.taken], None

    def compute(self, epoch: int, positions: Sequence[int]) -> None:
        """A gradient over these samples is ready; they are consumed if it gets into a committed round."""
        target = sum(positions) / len(positions) / 100 if positions else 0.5
        self.gradient = self.x - target
        self.taken.append((epoch, tuple(positions)))

    def local_step(self) -> None:
        self.momentum = _MOMENTUM * self.momentum + self.gradient
        self.x -= _LR * self.momentum

    def part(self, mode: Mode, weight: float) -> Part:
        value = self.gradient if mode == "gradients" else self.x
        return Part(mode, weight, value, self.anchor.one, tuple(self.taken), self.start, self.residual)

    def commit(self, reduced: Reduced, rank: int, then: Mode) -> None:
        """Install what came of a round in which this was member `rank`; the member's own steps are in it."""
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
        """Take over another's state, or one's `own` from a checkpoint."""
        self.anchor, self.momentum = shard.anchor, shard.momentum
        self.x, self.residual = (shard.x, shard.residual) if own else (shard.anchor.x, 0.0)
        self.apart, self.start, self.taken, self.flown = shard.apart, self.x, [], None

    def loss(self) -> float:
        return (self.anchor.x - 0.3) ** 2 + 0.05


def fresh(worker: str) -> NumberReplica:
    """A replica with weights of its own, unlike any other worker's."""
    x = 1.0 + worker_number(worker) / 64
    return NumberReplica(replace(NumberAnchor(), x=x), x=x, start=x)
