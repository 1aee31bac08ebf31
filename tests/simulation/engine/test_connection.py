"""What a member's side of the simulated network keeps, and for how long."""

from __future__ import annotations

import weakref
from random import Random

from raysgd_local.simulation.engine.connection import Connection
from raysgd_local.simulation.engine.network import SimulatedNetwork


class Tensor:
    """Something large."""


def test_what_was_given_to_a_collective_is_not_kept_until_its_time_out():
    timers: list[tuple[float, object]] = []
    settled: list[str] = []
    network = SimulatedNetwork(Random(0), cost=lambda call, members: 0.1)
    connection = Connection(
        "w0",
        network,
        lambda delay_s, action: timers.append((delay_s, action)),
        60.0,
        lambda call, why: settled.append(why),
    )
    connection.join(1, ("w0",))
    kept = []
    for number in range(40):
        tensor = Tensor()
        kept.append(weakref.ref(tensor))
        assert connection.begin(f"reduce {number}", lambda given: None, tensor, None, 8)
        del tensor
        delay_s, action = timers.pop()
        assert delay_s < 1
        action()
        del action
    assert settled == [""] * 40
    assert len(timers) == 40
    assert sum(reference() is not None for reference in kept) <= 16  # those that a broken view may ask about
