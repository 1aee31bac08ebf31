"""How the training loss falls where nothing is learned: assumed, or as an earlier run's did."""

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
    """The training loss as a function of progress alone, however the workers average."""

    def loss(self, samples: float) -> float:
        """After `samples` of all workers."""
        ...


@dataclass(frozen=True)
class HalvingLoss:
    """Begins at 1 and halves every `samples`: an assumption.

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
    """The loss of an earlier run, from its `rounds.csv`; after its end it stays what it was.

    A round's loss is its mean, so it stands for the middle of the round's samples.
    """

    run: str

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
