"""The control part of a collective: one slot a member, summed with the state in the same flat vector.

Every member writes its own slot and zeros elsewhere, so the sum *is* the list of all slots, exact and equal on
all members: no second message is needed for loss, timing, stopping or membership.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import UNIQUE, IntFlag, verify
from functools import cached_property, reduce
from operator import or_

# An integer below 2**24 travels exactly in a float32; wider ones are cut into digits of this base.
_BASE = 1 << 24


@verify(UNIQUE)
class Flags(IntFlag):
    """What a member says with one bit, decided upon by all alike once it is reduced."""

    NONE = 0
    YIELD = 1  # the controller asked for a boundary
    LEAVING = 2  # this member will be gone after the boundary (SIGTERM, draining node)
    NONFINITE = 4  # its state was not finite: zeroed, weight 0
    OVERFLOW = 8  # its mixed-precision step overflowed and was skipped
    STOP = 16  # user code asked all to stop
    LEFT = 32  # its loop left the open epoch; what it did not consume is dealt anew
    DIVERGED = 64  # it is further from the anchor than the schedule bears
    LAST = 128  # the open epoch is its loop's last


@dataclass(frozen=True)
class HeldOut:
    """What one member found in a probe, on `batches` batches of `samples` samples together: their loss after
    synchronous steps, summed over samples, `gap_sum` how much larger it was after local ones, and `gap_squares` the
    squares of that summed over batches.
    """

    batches: int = 0
    samples: int = 0
    loss_sum: float = 0.0
    gap_sum: float = 0.0
    gap_squares: float = 0.0


@dataclass(frozen=True)
class Contribution:
    """What one member says in one exchange, about the round that is being averaged.

    `consumed` counts positions of the deal; `clock_s` is the time since this member's previous exchange began,
    `compute_s` what of it was local steps, `wire_bytes` what it sent in the round before, unless reported since;
    `checksum` (48 bit) is of the state committed last; `lr_decay` the learning-rate schedule's decay factor,
    `lr_settled` the rate as if warm-up were over; `scale` the loss scale; `residual` the norm of what compression
    left out of its messages up to the round before; `held_out` what a probe found, with the round after it.
    """

    weight: float = 0.0
    loss_sum: float = 0.0
    steps: int = 0
    samples: int = 0
    consumed: int = 0
    compute_s: float = 0.0
    clock_s: float = 0.0
    lr: float = 0.0
    lr_decay: float = 1.0
    lr_settled: float = 0.0
    scale: float = 0.0
    residual: float = 0.0
    wire_bytes: int = 0
    checksum: int = 0
    flags: Flags = Flags.NONE
    held_out: HeldOut = HeldOut()


SLOT = 22
"""Floats one member's slot takes: thirteen fields, the two wide ones in two digits each, and a probe's five."""


def encode(c: Contribution) -> list[float]:
    """The slot, as `SLOT` floats that survive float32."""
    held = c.held_out
    return [
        c.weight,
        c.loss_sum,
        c.steps,
        c.samples,
        c.consumed,
        c.compute_s,
        c.clock_s,
        c.lr,
        c.lr_decay,
        c.lr_settled,
        c.scale,
        c.residual,
        float(c.flags),
        *divmod(c.wire_bytes, _BASE),
        *divmod(c.checksum, _BASE),
        held.batches,
        held.samples,
        held.loss_sum,
        held.gap_sum,
        held.gap_squares,
    ]


def decode(slot: Sequence[float]) -> Contribution:
    """The inverse of `encode`, but for the rounding of a float32.

    >>> said = Contribution(weight=32.0, steps=3, wire_bytes=3_000_000_001, flags=Flags.LEFT)
    >>> decode(encode(said)) == said
    True
    """
    weight, loss_sum, steps, samples, consumed, compute_s, clock_s = slot[:7]
    lr, decay, settled, scale, residual, flags = slot[7:13]
    batches, looked_at, held_loss, gap_sum, gap_squares = slot[17:22]
    return Contribution(
        weight,
        loss_sum,
        int(steps),
        int(samples),
        int(consumed),
        compute_s,
        clock_s,
        lr,
        decay,
        settled,
        scale,
        residual,
        int(slot[13]) * _BASE + int(slot[14]),
        int(slot[15]) * _BASE + int(slot[16]),
        Flags(int(flags)),
        HeldOut(int(batches), int(looked_at), held_loss, gap_sum, gap_squares),
    )


def digits(values: Sequence[int]) -> list[float]:
    """Integers of 64 bit as three exact floats each (for integer buffers, which travel in slots too)."""
    parts: list[float] = []
    for value in values:
        high, low = divmod(value, _BASE)
        parts += [*divmod(high, _BASE), low]
    return parts


def from_digits(parts: Sequence[float]) -> list[int]:
    """The inverse of `digits`.

    >>> from_digits(digits([-1, 0, 2**53 + 1])) == [-1, 0, 2**53 + 1]
    True
    """
    triples = zip(parts[0::3], parts[1::3], parts[2::3], strict=True)
    return [(int(a) * _BASE + int(b)) * _BASE + int(c) for a, b, c in triples]


@dataclass(frozen=True)
class Control:
    """All members' contributions to one exchange, in rank order: what everybody knows after it."""

    members: tuple[Contribution, ...]

    @cached_property
    def weight(self) -> float:
        return math.fsum(c.weight for c in self.members)

    @cached_property
    def steps(self) -> int:
        return sum(c.steps for c in self.members)

    @cached_property
    def samples(self) -> int:
        return sum(c.samples for c in self.members)

    @cached_property
    def wire_bytes(self) -> int:
        return sum(c.wire_bytes for c in self.members)

    @cached_property
    def loss(self) -> float:
        """The round's mean training loss over all samples of finite members; NaN where there are none."""
        healthy = [c for c in self.members if not c.flags & Flags.NONFINITE]
        samples = self.finite_samples
        return math.fsum(c.loss_sum for c in healthy) / samples if samples else math.nan

    @cached_property
    def finite_samples(self) -> int:
        """The round's samples of finite members: what `loss` is the mean over."""
        return sum(c.samples for c in self.members if not c.flags & Flags.NONFINITE)

    @cached_property
    def clock_s(self) -> float:
        """Training time since the round before, by the oldest member's clock.

        Differences of one clock add up to its whole time; the largest of all members' would count the same wait
        twice whenever another one is the slowest.
        """
        return self.members[0].clock_s

    @cached_property
    def slowest_s(self) -> float:
        return max(c.compute_s for c in self.members)

    @cached_property
    def compute_s(self) -> float:
        return math.fsum(c.compute_s for c in self.members) / len(self.members)

    @cached_property
    def flags(self) -> Flags:
        return reduce(or_, (c.flags for c in self.members), Flags.NONE)

    @cached_property
    def sick(self) -> tuple[bool, ...]:
        """By rank, whose state is not finite (gradients that overflowed with the loss scale are no sign of that)."""
        return tuple(bool(c.flags & Flags.NONFINITE) and not c.flags & Flags.OVERFLOW for c in self.members)

    @cached_property
    def agreed(self) -> bool:
        """Whether all members came with the same committed state (invariant 1)."""
        return len({c.checksum for c in self.members}) == 1

    def ranks(self, flag: Flags) -> tuple[int, ...]:
        """The ranks that said `flag`."""
        return tuple(rank for rank, c in enumerate(self.members) if c.flags & flag)
