"""What a member's shell needs of its replica and its peers: one method a command."""

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
    sent_bytes: int  # by this member


class ReplicaPort(Protocol):
    """A replica and its connection to the other members of a view.

    Every method that others take part in raises `TransportError` if it does not complete for this member.
    """

    # The view.

    def connect(self, command: m.Connect, order: Order) -> None: ...

    def cut(self, view: int) -> None:
        """Break what is under way in `view`, and let nothing of it begin any more; from any thread."""
        ...

    def leave(self) -> None:
        """Leave the view, if any; an averaging that travels is lost with it."""
        ...

    # Entering a view.

    def heal(self, command: m.Heal, state: Replicated) -> None: ...

    def transfer(self, command: m.Transfer) -> None: ...

    def align(self, command: m.Align) -> None: ...

    def fetch(self, member: Member) -> None: ...

    def restore(self, name: str, member: Member) -> None:
        """Load a checkpoint. Raises `CheckpointError` if it is damaged."""
        ...

    # Steps, and what is tried and undone.

    def local_step(self, pending: int, state: Replicated) -> None: ...

    def probe(self, command: m.Mark | m.Look | m.ShowMean | m.Undo) -> None: ...

    # Rounds.

    def finish_steps(self, said: Contribution, state: Replicated) -> None:
        """Wait until the steps so far are computed: the time up to here is the member's own."""
        ...

    def describe(self, said: Contribution, state: Replicated) -> Contribution:
        """Add the replica's measurements: weight, loss, learning rates, residual, flags, a probe's losses."""
        ...

    def exchange(self, command: m.Exchange, said: Contribution, member: Member) -> ExchangeResult: ...

    def finite(self) -> bool:
        """Whether the state reduced last is finite."""
        ...

    def launch(self, command: m.Exchange, said: Contribution, member: Member) -> None:
        """Begin an exchange of the state as it is now, and return."""
        ...

    def collect(self) -> ExchangeResult:
        """Wait for the exchange that was launched."""
        ...

    def average_probe(self, command: m.AverageProbe) -> ExchangeResult: ...

    def commit(self, command: m.Commit, state: Replicated) -> None: ...

    def committed(self, view: int, round: int) -> None:
        """A round is committed, and the controller told so if it was a view's first."""
        ...

    def evaluate(
        self, command: m.Evaluate, waiting: Callable[[], AbstractContextManager[None]]
    ) -> dict[str, float]:
        """The metrics over all members; in `waiting` while this one waits for others."""
        ...

    # Checkpoints and data.

    def save(self, save: Save, rank: int) -> None:
        """Copy the state and return; it is written in the background."""
        ...

    def with_holdings(self, report: Report) -> Report:
        """Add the chunks that this worker holds, and the bytes of them that it moved."""
        ...
