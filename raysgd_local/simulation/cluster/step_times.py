"""Times of optimizer steps on a worker of speed 1: distributions, and measurements of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from raysgd_local.algorithms import validation
from raysgd_local.errors import InputError
from raysgd_local.run_files import reader

Floats = npt.NDArray[np.float64]


class StepTimes(Protocol):
    """Draws the times of steps, independently for each worker."""

    @property
    def mean_s(self) -> float: ...

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Return seconds in an array of `shape`, whose last axis is consecutive steps of one worker."""
        ...


@dataclass(frozen=True)
class Constant:
    """Every step takes `mean_s`."""

    mean_s: float = 0.1

    def __post_init__(self) -> None:
        validation.number("mean_s", self.mean_s, above=0)

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:  # noqa: ARG002 - a constant
        return np.full(shape, self.mean_s)


@dataclass(frozen=True)
class Exponential:
    """Exponential times, as in section 3 of Wang & Joshi (MLSys 2019). The slowest of m workers takes
    1 + 1/2 + … + 1/m times the mean.
    """

    mean_s: float = 0.1

    def __post_init__(self) -> None:
        validation.number("mean_s", self.mean_s, above=0)

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return random.exponential(self.mean_s, shape)


@dataclass(frozen=True)
class ShiftedExponential:
    """A constant plus an exponential time: the usual model of stragglers."""

    shift_s: float = 0.08  # constant part
    tail_s: float = 0.02  # mean of the exponential part

    def __post_init__(self) -> None:
        validation.number("shift_s", self.shift_s, above=0)
        validation.number("tail_s", self.tail_s, above=0)

    @property
    def mean_s(self) -> float:
        return self.shift_s + self.tail_s

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return self.shift_s + random.exponential(self.tail_s, shape)


@dataclass(frozen=True)
class Pareto:
    """Times with a heavy tail: P(time > t) = (least_s / t)^shape."""

    least_s: float = 0.1  # shortest time
    shape: float = 3.0  # above 1, or there would be no mean

    def __post_init__(self) -> None:
        validation.number("least_s", self.least_s, above=0)
        validation.number("shape", self.shape, above=1)

    @property
    def mean_s(self) -> float:
        return self.least_s * self.shape / (self.shape - 1)

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return self.least_s * (1.0 + random.pareto(self.shape, shape))


@dataclass(frozen=True)
class SampledSteps:
    """Times drawn independently from a list of measured ones."""

    times_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.times_s:
            raise InputError("times_s", self.times_s, "a list of at least one number above 0")
        for time_s in self.times_s:
            validation.number("times_s", time_s, above=0)

    @property
    def mean_s(self) -> float:
        return float(np.mean(self.times_s))

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return random.choice(np.array(self.times_s), shape)


@dataclass(frozen=True)
class Measured:
    """The times of an earlier run, from its `rounds.csv`.

    For each round the table has the mean compute time of the workers (`compute_s`), and how much longer the slowest
    took (`wait_s`). With two workers that determines both. With more, the others' times are assumed to be spread like
    the order statistics of an exponential distribution. Consecutive steps have the mean time of one drawn round, for
    as many steps as it had. So a run that averaged after every step shows best how steps vary; a run with long periods
    makes shorter ones look smoother than they are. The first round is left out, since it includes loading and set-up.
    """

    run: str  # directory of the run

    def __post_init__(self) -> None:
        if not len(self._blocks.steps):
            raise InputError("run", self.run, "a run directory", "no round in it has a step that took time")

    @cached_property
    def _blocks(self) -> StepBlocks:
        rows = reader.load(self.run).rounds
        rows = rows[(rows["steps"] > 0) & (rows["compute_s"] > 0)]
        rows = rows.iloc[1:] if len(rows) > 1 else rows
        columns = (rows[name].to_numpy(float) for name in ("workers", "steps", "compute_s", "wait_s"))
        return StepBlocks.of([_workers_of(*row) for row in zip(*columns, strict=True)])

    @property
    def mean_s(self) -> float:
        return self._blocks.mean_s

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return self._blocks.draw(random, shape)


def _workers_of(workers: float, steps: float, compute_s: float, wait_s: float) -> tuple[Floats, float]:
    """Return the seconds per step of a row's workers, ascending, (workers,), and the number of steps of each."""
    own = steps / workers
    order = np.cumsum(1.0 / np.arange(workers, 0, -1))  # expected order statistics of exponential times of mean 1
    spread = (order - 1) / (order[-1] - 1) if workers > 1 else np.zeros(1)
    return np.maximum(compute_s + wait_s * spread, 0.0) / own, own


@dataclass(frozen=True)
class StepBlocks:
    """Blocks of consecutive steps of equal time, drawn with equal probability."""

    step_s: Floats  # (n,) time of each step of a block
    steps: npt.NDArray[np.int64]  # (n,) number of steps of a block

    @staticmethod
    def of(rounds: Sequence[tuple[Floats, float]]) -> StepBlocks:
        """Make blocks from rounds, each given as its workers' seconds per step, and the number of steps of each."""
        if not rounds:
            return StepBlocks(np.empty(0), np.empty(0, dtype=np.int64))
        lengths = [np.full(len(times), max(1, round(steps)), dtype=np.int64) for times, steps in rounds]
        return StepBlocks(np.concatenate([times for times, _ in rounds]), np.concatenate(lengths))

    @property
    def mean_s(self) -> float:
        return float(self.steps @ self.step_s / self.steps.sum())

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Fill each line of the last axis with blocks end to end, beginning at a random place in the first."""
        *lines, steps = shape or (1,)
        count, most = int(np.prod(lines)), -(-steps // int(self.steps.min())) + 1
        chosen = random.integers(len(self.steps), size=(count, most))
        chosen[:, 0] = random.choice(len(self.steps), count, p=self.steps / self.steps.sum())
        lengths = self.steps[chosen]  # (count, most)
        lengths[:, 0] = random.integers(1, lengths[:, 0] + 1)
        ends = np.minimum(lengths.cumsum(axis=1), steps) + steps * np.arange(count)[:, None]
        block = np.searchsorted(ends.ravel(), np.arange(count * steps), side="right")
        return np.asarray(self.step_s[chosen.ravel()[block]].reshape(shape))


STEP_TIMES: Mapping[str, type[StepTimes]] = MappingProxyType(
    {
        "constant": Constant,
        "exponential": Exponential,
        "shifted-exponential": ShiftedExponential,
        "pareto": Pareto,
        "samples": SampledSteps,
        "measured": Measured,
    }
)
"""The classes by their `kind` in cluster files."""
