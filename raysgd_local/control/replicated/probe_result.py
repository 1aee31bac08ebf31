"""The result of a probe, and the rounds left for one, computed from reduced values."""

from __future__ import annotations

import math

from raysgd_local.algorithms.schedules.base import Compared
from raysgd_local.control.control_slots import Control


def rounds_left(lengths: tuple[int, ...] | None, cursors: tuple[int, ...], control: Control) -> int:
    """Return the number of further rounds like this one for which every member has data in the open epoch.

    0 if the loop doesn't use `ctx.batches`.
    """
    most = max((said.consumed for said in control.members), default=0)
    if lengths is None or not most:
        return 0
    return min(length - cursor for length, cursor in zip(lengths, cursors, strict=True)) // most


def compared(control: Control) -> Compared | None:
    """Return the losses that a probe measured; None unless every member reports some.

    The difference is weighted by samples. Its standard error assumes that a member's batches are of equal size.
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
