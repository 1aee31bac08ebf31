"""Compute the time and the bytes of one reduction from the cluster's links."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from raysgd_local.control.control_slots import SLOT, Control
from raysgd_local.control.replicated.extent import Extent
from raysgd_local.control.replicated.state import Replicated, extent
from raysgd_local.simulation.timing.plan import TimingPlan


@dataclass(frozen=True)
class Cost:
    """The cost of a reduction."""

    seconds: float  # from the last member's arrival to the result
    sent_bytes: int  # by each member


def cost(plan: TimingPlan, state: Replicated, control: Control, partial: bool) -> Cost:
    """Return the cost of the averaging with these slots, after `state`. With `partial` the slots are reduced first."""
    reach = extent(state, control, plan.program)
    if not partial or reach.whole:
        return _whole(plan, partial)
    if plan.program.averaging.gossips:
        return _gossip(plan, state)
    return _in_blocks(plan, reach)


def _whole(plan: TimingPlan, partial: bool) -> Cost:
    cluster, workers, slots_bytes = plan.cluster, plan.workers, _slots_bytes(plan)
    size_bytes = plan.state_bytes + slots_bytes
    hearing_s = cluster.reduction_s(slots_bytes, workers) if partial else 0.0
    seconds = cluster.reduction_s(size_bytes - slots_bytes * partial, workers) + hearing_s
    return Cost(seconds, 2 * size_bytes * (workers - 1) // workers)


def _gossip(plan: TimingPlan, state: Replicated) -> Cost:
    near = plan.program.averaging.neighbours(0, state.round + 1, plan.workers) or ()
    seconds = _hearing_s(plan) + len(near) * plan.cluster.link.message_s(plan.state_bytes)
    return Cost(seconds, len(near) * plan.state_bytes)


def _in_blocks(plan: TimingPlan, reach: Extent) -> Cost:
    """Return the largest block's cost, because it takes longest."""
    block = max(Counter(reach.blocks).values())
    seconds = _hearing_s(plan) + plan.cluster.reduction_s(plan.state_bytes, block)
    return Cost(seconds, 2 * plan.state_bytes * (block - 1) // block)


def _hearing_s(plan: TimingPlan) -> float:
    """Return the time to reduce the slots, and the vote."""
    cluster, workers = plan.cluster, plan.workers
    return cluster.reduction_s(_slots_bytes(plan), workers) + cluster.reduction_s(4, workers)


def _slots_bytes(plan: TimingPlan) -> int:
    return 4 * SLOT * plan.workers
