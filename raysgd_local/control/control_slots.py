"""Control slots: one for each member, summed with the state in the same flat vector.

Each member fills its own slot and writes zeros into the others, so the sum *is* the list of all slots, exact and equal
on all members: loss, timing, stopping and membership need no second message.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import UNIQUE, IntFlag, verify
from functools import cached_property, reduce
from operator import attrgetter, or_
from typing import Any, get_type_hints

from raysgd_local.records import made, replace_fields

# An integer below 2**24 travels exactly in a float32; wider ones are cut into digits of this base.
_BASE = 1 << 24


@verify(UNIQUE)
class Flags(IntFlag):
    """One-bit messages of a member. After the reduction every member acts on them alike."""

    NONE = 0
    YIELD = 1  # the controller asked for a boundary
    LEAVING = 2  # this member will be gone after the boundary (SIGTERM, draining node)
    NONFINITE = 4  # this member's state was not finite: zeroed, weight 0
    OVERFLOW = 8  # this member's mixed-precision step overflowed and was skipped
    STOP = 16  # user code asked all to stop
    LEFT = 32  # this member's loop left the open epoch; the rest of its list is dealt anew
    DIVERGED = 64  # this member is further from the anchor than the schedule allows
    LAST = 128  # the open epoch is the last of this member's loop
    HOLDS = 256  # this member's loop steps optimizers by name: it may step others on its newest batch
    WAITS = 512  # this member's step belongs to a later round: others first finish a batch (`Control.in_step`)
    EVALUATES = 1024  # this member waits for the others at an evaluation
    BETWEEN = 2048  # this member's loop is between two epochs
    ENDED = 4096  # this member's loop has ended
    EXHAUSTED = 8192  # this member's list of a stream is used up: only its reader knows where it ends


def _wide(digits: int = 2) -> Any:
    """Declare a field for integers below 2**(24 · digits), which take so many floats of the slot."""
    return field(default=0, metadata={"digits": digits})


@dataclass(frozen=True)
class HeldOut:
    """One member's losses in a probe, on batches that it did not train on."""

    batches: int = 0
    samples: int = 0  # in all of the batches
    loss_sum: float = 0.0  # after synchronous steps, summed over samples
    gap_sum: float = 0.0  # loss after local steps minus loss after synchronous ones, summed over samples
    gap_squares: float = 0.0  # squares of each batch's gap, summed over batches


@dataclass(frozen=True)
class Contribution:
    """One member's control slot: its part of the round that is being averaged, and its measurements."""

    weight: float = 0.0  # in the mean; 0: no state of this member is in it
    loss_sum: float = 0.0  # training loss, summed over samples
    steps: int = 0  # optimizer steps in this round
    stepping: int = 0  # bits of the optimizers that step together; 0: all, and where steps are local
    samples: int = 0  # in `steps`
    consumed: int = _wide(digits=3)  # positions of the deal in `steps`
    split: int = 0  # rows after these positions of which samples in `steps`, or in earlier steps, have a part
    epoch: int = 0  # of this member's loop
    compute_s: float = 0.0  # time in local steps, of `clock_s`
    clock_s: float = 0.0  # time since this member's previous exchange began
    lr: float = 0.0  # learning rate of the next step
    lr_decay: float = 1.0  # decay factor of the learning-rate schedule
    lr_settled: float = 0.0  # learning rate as if warm-up were over
    scale: float = 0.0  # loss scale of mixed precision
    residual: float = 0.0  # norm of the residual after the previous round
    wire_bytes: int = _wide()  # sent in the previous round, unless reported since
    scheduler_steps: int = _wide()  # of the loop's learning-rate schedulers together, since the run began
    checksum: int = _wide()  # of the state committed last; 48 bit
    flags: Flags = Flags.NONE  # one-bit messages
    held_out: HeldOut = HeldOut()  # result of the probe before this round


@dataclass(frozen=True)
class _Layout:
    """Positions of a record's values in a slot: one float a value, then the higher digits of the wide ones."""

    names: tuple[str, ...]  # fields, in the order of declaration
    get: attrgetter[tuple[float, ...]]  # returns all values, those of nested records in their place
    reads: tuple[tuple[int, Callable[[float], Any]], ...]  # index and type of the values that are no floats
    wide: tuple[tuple[int, int], ...]  # indices of the values that take further floats, and how many
    nested: tuple[tuple[type, tuple[str, ...], slice], ...]  # records among the fields; the last one first
    size: int  # floats in a slot


def _reader(kind: Any) -> Callable[[float], Any]:
    """Return the function that turns a float of the slot into `kind`; flags take no floats that they have not seen."""
    return (lambda value: kind(int(value))) if issubclass(kind, IntFlag) else kind


def _layout(record: type) -> _Layout:
    """Derive the layout from the fields' types."""
    names: list[str] = []
    kinds: list[Any] = []
    wide: list[tuple[int, int]] = []
    nested: list[tuple[type, tuple[str, ...], slice]] = []
    types = get_type_hints(record)
    for own in fields(record):
        kind, start = types[own.name], len(kinds)
        inner = get_type_hints(kind) if is_dataclass(kind) else {}
        names += [f"{own.name}.{name}" for name in inner] or [own.name]
        kinds += inner.values() or [kind]
        if inner:
            nested.insert(0, (kind, tuple(inner), slice(start, len(kinds))))
        if "digits" in own.metadata:
            wide.append((start, own.metadata["digits"] - 1))
    size = len(kinds) + sum(more for _, more in wide)
    reads = tuple((index, _reader(kind)) for index, kind in enumerate(kinds) if kind is not float)
    return _Layout(tuple(types), attrgetter(*names), reads, tuple(wide), tuple(nested), size)


_LAYOUT = _layout(Contribution)

SLOT = _LAYOUT.size
"""Number of floats in one member's slot."""


def encode(contribution: Contribution) -> list[float]:
    """Return the slot as `SLOT` numbers, whose integers are exact in float32."""
    values = list(_LAYOUT.get(contribution))
    for index, more in _LAYOUT.wide:
        rest, values[index] = divmod(values[index], _BASE)
        for _ in range(more):
            rest, digit = divmod(rest, _BASE)
            values.append(digit)
    return values


def decode(slot: Sequence[float]) -> Contribution:
    """The inverse of `encode`, up to float32 rounding.

    >>> said = Contribution(weight=32.0, steps=3, wire_bytes=3_000_000_001, flags=Flags.LEFT)
    >>> decode(encode(said)) == said
    True
    """
    values: list[Any] = list(slot)
    for index, read in _LAYOUT.reads:
        values[index] = read(values[index])
    for index, more in reversed(_LAYOUT.wide):
        for power in range(more, 0, -1):
            values[index] += int(values.pop()) * _BASE**power
    for record, names, place in _LAYOUT.nested:
        values[place] = [made(record, names, values[place])]
    return made(Contribution, _LAYOUT.names, values)


def digits(values: Sequence[int]) -> list[float]:
    """Return three exact floats for each 64-bit integer (integer buffers travel in slots too)."""
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
    """All members' contributions to one exchange, in rank order. Equal on all members."""

    members: tuple[Contribution, ...]

    @cached_property
    def weight(self) -> float:
        return math.fsum(c.weight for c in self.members)

    @cached_property
    def steppings(self) -> dict[int, tuple[int, ...]]:
        """The optimizers that members step together (`Contribution.stepping`), with their ranks. One, if all agree."""
        found: dict[int, tuple[int, ...]] = {}
        for rank, said in enumerate(self.members):
            if said.steps:
                found[said.stepping] = (*found.get(said.stepping, ()), rank)
        return found

    @cached_property
    def stepping(self) -> int:
        """The optimizers that step in this round of averaged gradients, on all members."""
        return next(iter(self.steppings), 0)

    @cached_property
    def stepping_weight(self) -> float:
        """The weight of the members whose gradients are averaged in this round."""
        return math.fsum(c.weight for c in self.members if not c.flags & Flags.WAITS)

    @cached_property
    def in_step(self) -> Control:
        """This round where members that begin a batch wait until others have finished theirs.

        A loop that steps optimizers one after the other is in the middle of a batch at every other boundary. There a
        worker joins, or gets data again, and begins a batch. Nothing else can be settled: see `steppings`.
        """
        within = {c.stepping for c in self.members if c.steps and not c.samples}
        if len(self.steppings) < 2 or len(within) != 1:
            return self
        return Control(tuple(_waiting(c) if c.steps and c.stepping not in within else c for c in self.members))

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
        """The round's mean training loss over all samples of finite members; NaN without such samples."""
        healthy = [c for c in self.members if not c.flags & Flags.NONFINITE]
        samples = self.finite_samples
        return math.fsum(c.loss_sum for c in healthy) / samples if samples else math.nan

    @cached_property
    def finite_samples(self) -> int:
        """The round's samples of finite members, over which `loss` is the mean."""
        return sum(c.samples for c in self.members if not c.flags & Flags.NONFINITE)

    @cached_property
    def clock_s(self) -> float:
        """Training time since the previous round, by the oldest member's clock.

        Differences of one clock add up to its whole time. The maximum over all members would count the same wait twice
        whenever another member is the slowest.
        """
        return self.members[0].clock_s

    @cached_property
    def slowest_s(self) -> float:
        """The longest time that a member spent in local steps."""
        return max(c.compute_s for c in self.members)

    @cached_property
    def compute_s(self) -> float:
        """The mean time that members spent in local steps."""
        return math.fsum(c.compute_s for c in self.members) / len(self.members)

    @cached_property
    def flags(self) -> Flags:
        """Every flag that some member set."""
        return reduce(or_, (c.flags for c in self.members), Flags.NONE)

    @cached_property
    def sick(self) -> tuple[bool, ...]:
        """For each rank whether its state is not finite. An overflow of scaled gradients doesn't count."""
        return tuple(bool(c.flags & Flags.NONFINITE) and not c.flags & Flags.OVERFLOW for c in self.members)

    @cached_property
    def agreed(self) -> bool:
        """Whether all members have the same committed state (invariant 1)."""
        return len({c.checksum for c in self.members}) == 1

    @property
    def at_evaluation(self) -> bool:
        """Whether all members came for an evaluation, with finite state: then this is no round."""
        return all(c.flags & Flags.EVALUATES for c in self.members) and not any(self.sick)

    def ranks(self, flag: Flags) -> tuple[int, ...]:
        """The ranks that set `flag`."""
        return tuple(rank for rank, c in enumerate(self.members) if c.flags & flag)


def _waiting(said: Contribution) -> Contribution:
    """Return the slot of a member whose step belongs to a later round; its buffers are averaged in this one."""
    kept = said.flags & ~(Flags.OVERFLOW | Flags.NONFINITE) if said.flags & Flags.OVERFLOW else said.flags
    kept &= ~Flags.EXHAUSTED  # its list ends behind that step
    return replace_fields(said, steps=0, samples=0, consumed=0, split=0, loss_sum=0.0, flags=kept | Flags.WAITS)
