"""The extent of an averaging, for methods with partial averaging: global or not, decided on reduced values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raysgd_local.control.control_slots import Control, Flags
from raysgd_local.control.replicated.program import Program

_MEETING = Flags.YIELD | Flags.LEAVING | Flags.STOP | Flags.DIVERGED
"""Flags that make the averaging global: a requested boundary, a leaving member, a stop, or too large a distance."""


@dataclass(frozen=True)
class Extent:
    """The members that average with each other in a round, and their weights."""

    whole: bool  # global; otherwise over neighbours or blocks
    shares: tuple[
        float, ...
    ]  # weight of each rank in a global averaging; they sum to 1, or are 0 if none took steps
    blocks: tuple[int, ...]  # number of each rank's block
    everything: bool = False  # compressed messages include the whole residual, as it is some member's last round


def meets(control: Control) -> bool:
    """Whether all must average with all, whatever the schedule says, as members join, leave or need the model."""
    return bool(control.flags & _MEETING) or any(control.sick) or control.at_evaluation


def shares(control: Control, owed: Sequence[float], program: Program) -> tuple[float, ...]:
    """Return each rank's weight in a global averaging: its samples since the last one, of which `owed` are from
    earlier rounds.

    With gossip all count equally, since gossip conserves the unweighted mean.
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
    """Return each rank's samples that no global averaging has counted, after one in blocks: the mean of its block."""
    sums: dict[int, list[float]] = {}
    for block, said, before in zip(blocks, control.members, owed, strict=True):
        sums.setdefault(block, []).append(said.weight + before)
    return tuple(math.fsum(sums[block]) / len(sums[block]) for block in blocks)
