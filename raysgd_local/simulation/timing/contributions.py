"""Derive all members' control slots from the real member's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from raysgd_local.control.control_slots import Contribution, Control
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.simulation.cluster.step_times import Floats
from raysgd_local.simulation.timing.plan import TimingPlan


class Contributions:
    """Makes all members' control slots of a round."""

    def __init__(self, plan: TimingPlan) -> None:
        self._plan, loop = plan, plan.loop
        self._epoch_samples = loop.samples or loop.own_steps * loop.batch_size * plan.workers

    def control(self, said: Contribution, state: Replicated, compute_s: Floats, clock_s: Floats) -> Control:
        """Return all slots, from the real member's slot `said` and each worker's times, (workers,)."""
        plan = self._plan
        loss = plan.loss.loss(state.samples + said.samples * plan.workers / 2)
        epochs = state.samples / self._epoch_samples
        said = replace(
            said, lr=plan.lr * plan.learning_rate.factor(epochs), lr_decay=plan.learning_rate.decay(epochs)
        )
        each = zip(compute_s.tolist(), clock_s.tolist(), self._consumed(said.consumed, state), strict=True)
        return Control(tuple(_contribution(said, loss, *own) for own in each))

    def _consumed(self, first: int, state: Replicated) -> Sequence[int | None]:
        """Return each worker's consumed positions if worker 0 consumes `first`: lists may differ by one sample.

        None where no data are dealt.
        """
        if state.lengths is None:
            return [None] * self._plan.workers
        ends, at, rows = list(state.lengths), state.cursors[0] + first, state.later
        begun = 0  # epochs after the open one in which worker 0 is at the end of the round
        while begun + 1 < state.epochs - state.epoch and at >= ends[0]:
            row = rows[min(begun, len(rows) - 1)]
            ends, begun = [end + length for end, length in zip(ends, row, strict=True)], begun + 1
        if at >= ends[0]:
            return [end - cursor for end, cursor in zip(ends, state.cursors, strict=True)]
        row = state.lengths if not begun else rows[min(begun - 1, len(rows) - 1)]
        starts = [end - length for end, length in zip(ends, row, strict=True)]
        ahead = at - starts[0]  # in the last of these epochs
        places = zip(starts, ends, state.cursors, strict=True)
        return [max(0, min(start + ahead, end) - cursor) for start, end, cursor in places]


def _contribution(
    said: Contribution, loss: float, compute_s: float, clock_s: float, consumed: int | None
) -> Contribution:
    samples = said.samples if consumed is None else consumed
    return Contribution(
        weight=float(samples),
        loss_sum=loss * samples,
        steps=said.steps,
        samples=samples,
        consumed=consumed or 0,
        compute_s=compute_s,
        clock_s=clock_s,
        lr=said.lr,
        lr_decay=said.lr_decay,
        wire_bytes=said.wire_bytes,
        flags=said.flags,
    )
