"""How long things take: compute times, links, and the start of a worker. All in seconds and bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from raysgd_local.algorithms import checks
from raysgd_local.errors import InputError

Floats = npt.NDArray[np.float64]


class StepTimes(Protocol):
    """How long one optimizer step takes on a worker of speed 1."""

    @property
    def mean_s(self) -> float: ...

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Independent times, in seconds."""
        ...


def _not_negative(field: str, value: float) -> None:
    if not (isinstance(value, (int, float)) and 0 <= value < math.inf):
        raise InputError(field, value, "a finite number, 0 or above")


@dataclass(frozen=True)
class Constant:
    """Every step takes `mean_s`."""

    mean_s: float = 0.1

    def __post_init__(self) -> None:
        checks.number("mean_s", self.mean_s, above=0)

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:  # noqa: ARG002 - a constant
        return np.full(shape, self.mean_s)


@dataclass(frozen=True)
class ShiftedExponential:
    """At least `shift_s`, and an exponential time on top whose mean is `tail_s`: the usual model of stragglers.

    With `shift_s` of 0 the step times are exponential, as in section 3 of Wang & Joshi (MLSys 2019).
    """

    tail_s: float = 0.1
    shift_s: float = 0.0

    def __post_init__(self) -> None:
        checks.number("tail_s", self.tail_s, above=0)
        _not_negative("shift_s", self.shift_s)

    @property
    def mean_s(self) -> float:
        return self.shift_s + self.tail_s

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return self.shift_s + random.exponential(self.tail_s, shape)


@dataclass(frozen=True)
class Pareto:
    """Heavy tails: never below `least_s`, and P(time > t) = (least_s / t)^shape. `shape` above 1 has a mean."""

    least_s: float = 0.1
    shape: float = 3.0

    def __post_init__(self) -> None:
        checks.number("least_s", self.least_s, above=0)
        checks.number("shape", self.shape, above=1)

    @property
    def mean_s(self) -> float:
        return self.least_s * self.shape / (self.shape - 1)

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return self.least_s * (1.0 + random.pareto(self.shape, shape))


@dataclass(frozen=True)
class ClusterModel:
    """A cluster of equal links.

    `speeds` are factors by worker number (repeated where there are more workers; none: all 1); `bandwidth` is
    each worker's, in bytes a second, each way; a worker that is asked for runs after `startup_s`.

    >>> ClusterModel(latency_s=0.001, bandwidth=1e6).reduction_s(500_000, members=4)
    0.756
    """

    steps: StepTimes = field(default_factory=Constant)
    speeds: tuple[float, ...] = ()
    latency_s: float = 0.0005
    bandwidth: float = math.inf
    startup_s: float = 3.0

    def __post_init__(self) -> None:
        _not_negative("latency_s", self.latency_s)
        _not_negative("startup_s", self.startup_s)
        if not math.isinf(self.bandwidth):
            checks.number("bandwidth", self.bandwidth, above=0)
        for speed in self.speeds:
            checks.number("speeds", speed, above=0)

    def speed(self, number: int) -> float:
        """How much faster than the model's step times worker `number` is."""
        return self.speeds[number % len(self.speeds)] if self.speeds else 1.0

    def reduction_s(self, size_bytes: float, members: int) -> float:
        """A ring: each member sends 2(m−1)/m of the vector, in 2(m−1) messages one after the other."""
        if members < 2:
            return 0.0
        return 2 * (members - 1) * (size_bytes / members / self.bandwidth + self.latency_s)

    def broadcast_s(self, size_bytes: float, members: int) -> float:
        """A binomial tree: as many messages one after the other as it is deep."""
        return (
            math.ceil(math.log2(members)) * (size_bytes / self.bandwidth + self.latency_s) if members > 1 else 0.0
        )
