"""A shell's connection to its replica and to the other members: one method for each command."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from raysgd_local.control.control_slots import Contribution, Control
from raysgd_local.control.member import events as m
from raysgd_local.control.member.state import Member
from raysgd_local.control.messages import Order, Report, Save
from raysgd_local.control.replicated.state import Replicated


@dataclass(frozen=True)
class ExchangeResult:
    """The outcome of a reduction over all members."""

    control: Control
    sent_bytes: int  # bytes that this member sent


class ReplicaPort(Protocol):
    """A replica and its connection to the other members of a view.

    Every collective method raises `TransportError` if it does not complete for this member.
    """

    # The view.

    def connect(self, command: m.Connect, order: Order) -> None: ...

    def cut(self, view: int) -> None:
        """Break the collectives of `view`, present and future. May be called from any thread."""
        ...

    def leave(self) -> None:
        """Leave the view, if any. An exchange in flight is lost with it."""
        ...

    # Entering a view.

    def heal(self, command: m.Heal, state: Replicated) -> None: ...

    def transfer(self, command: m.Transfer) -> None: ...

    def align(self, command: m.Align) -> None: ...

    def fetch(self, member: Member) -> None: ...

    def restore(self, name: str, member: Member) -> None:
        """Load a checkpoint. Raises `CheckpointError` if it is damaged."""
        ...

    # Steps, and probes.

    def local_step(self, command: m.LocalStep, state: Replicated) -> None: ...

    def probe(self, command: m.Mark | m.Look | m.ShowMean | m.Undo) -> None: ...

    # Rounds.

    def finish_steps(self, said: Contribution, state: Replicated) -> None:
        """Wait until the device has computed the steps so far: the time up to here is the member's own."""
        ...

    def describe(self, said: Contribution, state: Replicated) -> Contribution:
        """Add the replica's measurements: weight, loss, learning rates, residual, flags, a probe's losses."""
        ...

    def exchange(self, command: m.Exchange, said: Contribution, member: Member) -> ExchangeResult: ...

    def finite(self) -> bool:
        """Whether the newest reduced state is finite."""
        ...

    def launch(self, command: m.Exchange, said: Contribution, member: Member) -> None:
        """Begin an exchange with a copy of the present state, and return."""
        ...

    def collect(self) -> ExchangeResult:
        """Wait for the exchange that was launched."""
        ...

    def average_probe(self, command: m.AverageProbe) -> ExchangeResult: ...

    def commit(self, command: m.Commit, state: Replicated) -> None: ...

    def committed(self, view: int, round: int) -> None:
        """Called when a round is committed, and announced to the controller if it was the view's first."""
        ...

    def evaluate(
        self, command: m.Evaluate, state: Replicated, waiting: Callable[[], AbstractContextManager[None]]
    ) -> dict[str, float]:
        """Return the metrics over all samples, equal on all members. Wait for other members inside `waiting()`.

        Evaluate the model, or, if the command `shows` the mean of an exchange, the model that committing it would give.
        """
        ...

    # Checkpoints and data.

    def save(self, save: Save, rank: int) -> None:
        """Copy the state for a checkpoint and return. The copy is written in the background."""
        ...

    def measure(self, command: m.Measure) -> None:
        """Find out how long shards are. `with_holdings` tells it."""
        ...

    def with_holdings(self, report: Report) -> Report:
        """Add the chunks whose data this worker holds, the bytes of chunks that it received, and what it has read."""
        ...
