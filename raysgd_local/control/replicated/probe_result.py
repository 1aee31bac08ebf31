"""What the schedule learns of a probe, and whether there is room for one: from reduced values only."""

from __future__ import annotations

import math

from raysgd_local.algorithms.schedules.base import Compared
from raysgd_local.control.control_slots import Control


def rounds_left(lengths: tuple[int, ...] | None, cursors: tuple[int, ...], control: Control) -> int:
    """For how many more rounds like this one every member's list is good; 0 where the loop takes no data from us."""
    most = max((said.consumed for said in control.members), default=0)
    if lengths is None or not most:
        return 0
    return min(length - cursor for length, cursor in zip(lengths, cursors, strict=True)) // most


def compared(control: Control) -> Compared | None:
    """The losses that a probe found, if every member has something to say.

    The difference is weighted by samples; its standard error takes all batches of one member to be of one size.
    """
    found = [said.held_out for said in control.members]
    if not all(held.batches for held in found):
        return None
    samples, batches = sum(held.samples for held in found), sum(held.batches for held in found)
    synchronous = math.fsum(held.loss_sum for held in found) / samples
    gap = math.fsum(held.gap_sum for held in found) / samples
    scatter = math.fsum(
        held.gap_squares - held.samples / held.batches * gap * (2 * held.gap_sum - gap * held.samples)
        for held in found
    )
    error = math.sqrt(max(0.0, scatter) * batches / (batches - 1)) / samples if batches > 1 else 0.0
    return Compared(synchronous + gap, synchronous, error)
