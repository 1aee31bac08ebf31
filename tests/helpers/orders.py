"""Orders, as tests read them."""

from __future__ import annotations

from raysgd_local.control.messages import CheckpointStart, FreshStart, Order


def given_state(order: Order) -> dict[str, str]:
    """For each member that the order gives state to, the member that sends it."""
    start, members = order.start, order.view.members
    if isinstance(start, CheckpointStart):
        return {}
    lead = 0 if isinstance(start, FreshStart) else start.lead
    return {members[rank]: members[lead] for rank in start.receivers}
