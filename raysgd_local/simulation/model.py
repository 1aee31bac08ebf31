"""A model small enough to be compared exactly: a number that learns, a one that must stay one, and what it saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from raysgd_local.algorithms.schedules.base import Mode

_LR, _MOMENTUM = 0.05, 0.9

Taken = tuple[int, tuple[int, ...]]  # epoch, positions


@dataclass(frozen=True)
class Anchor:
    """The state after a commit. `consumed` says, by epoch, how often each sample is in it (a byte a sample).

    `one` is averaged like a parameter and never trained: it stays 1 if weights sum to 1.
    """

    round: int = 0
    x: float = 0.0
    one: float = 1.0
    consumed: tuple[tuple[int, bytes], ...] = ()

    def times(self, epoch: int) -> bytes:
        """How often each sample of `epoch` was consumed; empty if none was."""
        return dict(self.consumed).get(epoch, b"")


@dataclass(frozen=True)
class Reduced:
    """The sum over all members, and what it is made of."""

    mode: Mode
    weight: float
    x_sum: float
    one_sum: float
    taken: tuple[Taken, ...]


@dataclass(frozen=True)
class Part:
    """One member's part of a sum."""

    mode: Mode
    weight: float
    x: float
    one: float
    taken: tuple[Taken, ...]

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


def commit(anchor: Anchor, reduced: Reduced, x: float) -> Anchor:
    """The anchor after a round; `x` is the number as it is now (averaged already, or stepped together)."""
    one = reduced.one_sum / reduced.weight if reduced.weight and reduced.mode == "parameters" else anchor.one
    return Anchor(anchor.round + 1, x, one, _add(anchor.consumed, reduced.taken))


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

    anchor: Anchor
    x: float
    momentum: float


@dataclass
class Replica:
    """One worker's copy: the anchor, its own steps since, and the vectors that heal others."""

    anchor: Anchor
    x: float = 0.0
    momentum: float = 0.0
    gradient: float = 0.0
    taken: list[Taken] = field(default_factory=list)
    kept: Reduced | None = None
    tried: Reduced | None = None

    def compute(self, epoch: int, positions: Sequence[int]) -> None:
        """A gradient over these samples is ready; they are consumed if it gets into a committed round."""
        target = sum(positions) / len(positions) / 100 if positions else 0.5
        self.gradient = self.x - target
        self.taken.append((epoch, tuple(positions)))

    def local_step(self) -> None:
        self.momentum = _MOMENTUM * self.momentum + self.gradient
        self.x -= _LR * self.momentum

    def part(self, mode: Mode, weight: float) -> Part:
        value = self.x if mode == "parameters" else self.gradient
        return Part(mode, weight, value, self.anchor.one, tuple(self.taken))

    def commit(self, reduced: Reduced) -> None:
        """Install the sum; the member's own steps are in it."""
        if reduced.weight and reduced.mode == "parameters":
            self.x = reduced.x_sum / reduced.weight
        elif reduced.weight:
            self.x, self.gradient = self.anchor.x, reduced.x_sum / reduced.weight
            self.local_step()
        self.anchor = commit(self.anchor, reduced, self.x)
        self.kept, self.taken = reduced, []

    def shard(self) -> Shard:
        return Shard(self.anchor, self.x, self.momentum)

    def load(self, shard: Shard) -> None:
        self.anchor, self.x, self.momentum = shard.anchor, shard.x, shard.momentum
        self.taken = []

    def loss(self) -> float:
        return (self.anchor.x - 0.3) ** 2 + 0.05


def fresh(worker: str) -> Replica:
    """A replica with weights of its own, unlike any other worker's."""
    x = 1.0 + int(worker[1:]) / 64
    return Replica(replace(Anchor(), x=x), x=x)
