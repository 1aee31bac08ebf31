"""Probes with a model that is a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from raysgd_local.control.control_slots import Contribution, Control, HeldOut
from raysgd_local.control.member import events as m
from raysgd_local.records import replace_fields
from raysgd_local.simulation.search.model import NumberReplica, Part


def average_trials(given: Sequence[tuple[Contribution, Part]]) -> tuple[Control, float]:
    """Return all members' slots, and the weighted mean of the finite numbers."""
    good = [part for _, part in given if part.finite and part.weight]
    total = math.fsum(part.weight for part in good)
    mean = math.fsum(part.weight * part.x for part in good) / total if total else math.nan
    return Control(tuple(said for said, _ in given)), mean


@dataclass
class NumberProbe:
    """One worker's side of a probe."""

    replica: NumberReplica
    mean: float = 0.0  # of all members' local steps
    losses: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})  # True: local
    _local: bool = False  # the present stage takes local steps
    _marked: tuple[Any, ...] = ()  # number and momentum to go back to

    def obey(self, command: m.Mark | m.Look | m.ShowMean | m.Undo) -> None:
        match command:
            case m.Mark(local):
                self.mark(local)
            case m.Look():
                self.look()
            case m.ShowMean():
                self.replica.x = self.mean
            case m.Undo():
                self.undo()
            case _:
                assert_never(command)

    def mark(self, local: bool) -> None:
        self._local, self.losses[False] = local, []
        if local:
            self.losses[True] = []
        r = self.replica
        r.gradient, r.taken = 0.0, []
        self._marked = r.x, r.momentum

    def look(self) -> None:
        """Record the batch's loss. The gradient is the distance to the batch's target."""
        self.losses[self._local].append(self.replica.gradient**2)

    def undo(self) -> None:
        r = self.replica
        r.x, r.momentum = self._marked
        r.gradient, r.taken = 0.0, []

    def told(self, said: HeldOut) -> HeldOut:
        if not said.batches:
            return said
        size = said.samples / said.batches
        pairs = list(zip(self.losses[True], self.losses[False], strict=True))
        gaps = [(local - synchronous) * size for local, synchronous in pairs]
        total = size * math.fsum(self.losses[False])
        return replace_fields(
            said, loss_sum=total, gap_sum=math.fsum(gaps), gap_squares=math.fsum(g * g for g in gaps)
        )
