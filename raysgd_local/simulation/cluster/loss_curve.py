"""The loss curve of timing-only runs, in which nothing is trained: assumed, or from an earlier run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from raysgd_local.algorithms import validation
from raysgd_local.errors import InputError
from raysgd_local.run_files import reader
from raysgd_local.simulation.cluster.step_times import Floats


class LossCurve(Protocol):
    """The training loss as a function of progress, independent of the averaging."""

    def loss(self, samples: float) -> float:
        """Return the loss after `samples` samples of all workers."""
        ...


@dataclass(frozen=True)
class HalvingLoss:
    """An assumed loss that begins at 1 and halves every `samples` samples.

    >>> HalvingLoss(samples=1000).loss(3000)
    0.125
    """

    samples: float

    def __post_init__(self) -> None:
        validation.number("samples", self.samples, above=0)

    def loss(self, samples: float) -> float:
        return float(0.5 ** (samples / self.samples))


@dataclass(frozen=True)
class RecordedLoss:
    """The loss of an earlier run, from its `rounds.csv`, constant after its end.

    A round's loss is a mean, so it counts as the loss at the middle of the round's samples.
    """

    run: str  # directory of the run

    def __post_init__(self) -> None:
        if not len(self._points[0]):
            raise InputError("run", self.run, "a run directory", "no round in it has a loss")

    @cached_property
    def _points(self) -> tuple[Floats, Floats]:
        rows = reader.load(self.run).rounds
        done = rows["samples"].cumsum() - rows["samples"] / 2
        known = np.isfinite(rows["loss"]) & (rows["samples"] > 0)
        return done[known].to_numpy(float), rows["loss"][known].to_numpy(float)

    def loss(self, samples: float) -> float:
        return float(np.interp(samples, *self._points))
