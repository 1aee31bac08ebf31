"""How far an averaging reaches where members otherwise average with some others only: decided on reduced values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raysgd_local.control.control_slots import Control, Flags
from raysgd_local.control.replicated.program import Program

_MEETING = Flags.YIELD | Flags.LEAVING | Flags.STOP | Flags.DIVERGED
"""What members say that needs all of them to have the model: a boundary that was asked for, the end, distance."""


@dataclass(frozen=True)
class Extent:
    """`whole`: over all members, each with its share of `shares` (they sum to 1, or are 0 where nobody did anything).

    Otherwise over the neighbours or the block: `blocks` has a number for each rank. With `everything` compressed
    messages leave nothing out: it is somebody's last round.
    """

    whole: bool
    shares: tuple[float, ...]
    blocks: tuple[int, ...]
    everything: bool = False


def meets(control: Control) -> bool:
    """Whether all average with all, whatever the schedule says: so that who comes, goes or is ill finds the model."""
    return bool(control.flags & _MEETING) or any(control.sick)


def shares(control: Control, owed: Sequence[float], program: Program) -> tuple[float, ...]:
    """What each counts where all average: samples since the last time that all did, `owed` those of rounds before.

    Gossip conserves the mean in which all count the same.
    """
    if program.averaging.gossips:
        counts = [0.0 if sick else 1.0 for sick in control.sick]
    else:
        counts = [
            0.0 if sick else said.weight + before
            for said, sick, before in zip(control.members, control.sick, owed, strict=True)
        ]
    total = math.fsum(counts)
    return tuple(count / total if total else 0.0 for count in counts)


def owed_after(control: Control, owed: Sequence[float], blocks: Sequence[int]) -> tuple[float, ...]:
    """By rank the samples that no averaging over all has counted yet, after one in blocks: equal within each."""
    sums: dict[int, list[float]] = {}
    for block, said, before in zip(blocks, control.members, owed, strict=True):
        sums.setdefault(block, []).append(said.weight + before)
    return tuple(math.fsum(sums[block]) / len(sums[block]) for block in blocks)
