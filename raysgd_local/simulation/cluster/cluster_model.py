"""The cluster model: times of steps, links and starts of workers, and rates of failures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from raysgd_local.algorithms import validation
from raysgd_local.errors import InputError
from raysgd_local.simulation.cluster.step_times import Constant, StepTimes

Way = Literal["ring", "two-level"]
_BYTES_A_MEGABIT = 1e6 / 8


def _not_negative(field: str, value: float) -> None:
    if not (isinstance(value, (int, float)) and 0 <= value < math.inf):
        raise InputError(field, value, "a finite number, 0 or above")


def _check_link(latency_ms: float, bandwidth_mbps: float | None) -> None:
    _not_negative("latency_ms", latency_ms)
    if bandwidth_mbps is not None:
        validation.number("bandwidth_mbps", bandwidth_mbps, above=0)


@dataclass(frozen=True)
class Link:
    """A full-duplex link between two workers."""

    latency_s: float
    bandwidth: float  # bytes per second, in each direction

    @staticmethod
    def of(latency_ms: float, bandwidth_mbps: float | None) -> Link:
        """Make a link from the units of cluster files. A bandwidth of None is unlimited."""
        return Link(latency_ms / 1000, math.inf if bandwidth_mbps is None else bandwidth_mbps * _BYTES_A_MEGABIT)

    def message_s(self, size_bytes: float) -> float:
        return size_bytes / self.bandwidth + self.latency_s


@dataclass(frozen=True)
class Nodes:
    """Machines with several workers each, numbered machine by machine, and faster links inside them.

    The all-reduce is either a `ring` over all workers, as gloo's, which waits for the slowest link in every step, or
    `two-level`: first inside machines, then between them, as in NCCL and hierarchical methods.
    """

    workers: int = 8  # on each machine
    latency_ms: float = 0.05  # inside a machine
    bandwidth_mbps: float | None = None  # inside a machine; None: unlimited
    reduction: Way = "ring"

    def __post_init__(self) -> None:
        validation.whole_number("workers", self.workers, at_least=1)
        _check_link(self.latency_ms, self.bandwidth_mbps)
        validation.one_of("reduction", self.reduction, get_args(Way))

    @property
    def link(self) -> Link:
        return Link.of(self.latency_ms, self.bandwidth_mbps)


@dataclass(frozen=True)
class Failures:
    """Rates of failures per worker, with exponential times between them."""

    deaths_per_hour: float = 0.0  # 1 / mean time between failures
    preemptions_per_hour: float = 0.0  # announced losses of a machine
    notice_s: float = 30.0  # from the notice to the preemption
    replacement_s: float = 0.0  # until a replacement is found; then it takes the cluster's `startup_s`

    def __post_init__(self) -> None:
        for name in ("deaths_per_hour", "preemptions_per_hour", "notice_s", "replacement_s"):
            _not_negative(name, getattr(self, name))


@dataclass(frozen=True)
class ClusterModel:
    """A model of a cluster: times of steps, links and starts of workers, and rates of failures.

    >>> ClusterModel(latency_ms=1, bandwidth_mbps=8).reduction_s(500_000, members=4)
    0.756
    """

    steps: StepTimes = field(default_factory=Constant)  # of a worker of speed 1
    speeds: tuple[float, ...] = ()  # factor for each worker, repeated for further ones; empty: all 1
    latency_ms: float = 0.5  # of the link between two workers
    bandwidth_mbps: float | None = None  # of that link, in each direction; None: unlimited
    nodes: Nodes | None = None  # machines with several workers; None: one each
    round_ms: float = 0.0  # further time of a round: packing, checking, installing
    warmup_s: float = 0.0  # extra time of the run's first steps
    startup_s: float = 3.0  # from the request for a worker until its process runs
    arrivals_s: tuple[float, ...] = ()  # earliest requests of the last of the initial workers, one each
    failures: Failures = Failures()

    def __post_init__(self) -> None:
        validation.has_methods("steps", self.steps, ("draw",), "step times, such as Constant(mean_s=0.1)")
        _check_link(self.latency_ms, self.bandwidth_mbps)
        for name in ("startup_s", "round_ms", "warmup_s"):
            _not_negative(name, getattr(self, name))
        for speed in self.speeds:
            validation.number("speeds", speed, above=0)
        for arrival_s in self.arrivals_s:
            _not_negative("arrivals_s", arrival_s)

    @property
    def link(self) -> Link:
        return Link.of(self.latency_ms, self.bandwidth_mbps)

    @property
    def latency_s(self) -> float:
        return self.link.latency_s

    @property
    def round_s(self) -> float:
        return self.round_ms / 1000

    def speed(self, number: int) -> float:
        """Return the speed of worker `number`, relative to the model's step times."""
        return self.speeds[number % len(self.speeds)] if self.speeds else 1.0

    def up_s(self, number: int, asked_s: float, workers: int) -> float:
        """Return the time at which worker `number`, requested at `asked_s`, is up, in a run of `workers` workers.

        Numbers count from 0 in the order of requests; from `workers` on they are replacements.

        >>> cluster = ClusterModel(startup_s=3, arrivals_s=(60,), failures=Failures(replacement_s=20))
        >>> [cluster.up_s(number, asked_s, workers=2) for number, asked_s in ((0, 0), (1, 0), (2, 100))]
        [3, 63, 123]
        """
        late = number - max(0, workers - len(self.arrivals_s))
        if number >= workers:
            asked_s += self.failures.replacement_s
        elif late >= 0:
            asked_s = max(asked_s, self.arrivals_s[late])
        return asked_s + self.startup_s

    def reduction_s(self, size_bytes: float, members: int) -> float:
        """Return the time of a ring all-reduce: 2(m−1) consecutive messages of 1/m of the vector."""
        if members < 2:
            return 0.0
        inside = self._inside(members)
        if inside == members:
            return _ring_s(self._inner, size_bytes, members)
        if self.nodes is None or self.nodes.reduction == "ring":
            return _ring_s(self.link, size_bytes, members)
        between = math.ceil(members / inside)
        return _ring_s(self._inner, size_bytes, inside) + _ring_s(self.link, size_bytes, between)

    def broadcast_s(self, size_bytes: float, members: int) -> float:
        """Return the time of a broadcast along a binomial tree: as many consecutive messages as it is deep."""
        inside = self._inside(members)
        between = _depth(math.ceil(members / inside)) * self.link.message_s(size_bytes)
        return between + _depth(inside) * self._inner.message_s(size_bytes)

    def _inside(self, members: int) -> int:
        """Return the number of members on one machine."""
        return min(members, self.nodes.workers) if self.nodes is not None else 1

    @property
    def _inner(self) -> Link:
        return self.nodes.link if self.nodes is not None else self.link


def _ring_s(link: Link, size_bytes: float, members: int) -> float:
    return 2 * (members - 1) * link.message_s(size_bytes / members)


def _depth(members: int) -> int:
    return math.ceil(math.log2(members))
