"""How long things take on a cluster, and how often they break: steps, links, starts, failures."""

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
    """From one worker to another, each way: `latency_s`, and `bandwidth` in bytes a second."""

    latency_s: float
    bandwidth: float

    @staticmethod
    def of(latency_ms: float, bandwidth_mbps: float | None) -> Link:
        """As people say it; None is a link whose bandwidth does not matter."""
        return Link(latency_ms / 1000, math.inf if bandwidth_mbps is None else bandwidth_mbps * _BYTES_A_MEGABIT)

    def message_s(self, size_bytes: float) -> float:
        return size_bytes / self.bandwidth + self.latency_s


@dataclass(frozen=True)
class Nodes:
    """`workers` on each machine, numbered machine by machine, with a faster link between them.

    `reduction` is how an averaging goes: `ring` is gloo's, over all workers in their order, so that each of its
    messages waits for the slowest link; `two-level` reduces within each machine, then among machines, as NCCL and
    hierarchical methods do.
    """

    workers: int = 8
    latency_ms: float = 0.05
    bandwidth_mbps: float | None = None
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
    """What a worker has to expect in an hour, at any moment alike (exponential times between).

    `deaths_per_hour` is one over the mean time between failures; `preemptions_per_hour` come with a notice,
    `notice_s` before. A replacement takes `replacement_s` to be found, and then the cluster's `startup_s`.
    """

    deaths_per_hour: float = 0.0
    preemptions_per_hour: float = 0.0
    notice_s: float = 30.0
    replacement_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("deaths_per_hour", "preemptions_per_hour", "notice_s", "replacement_s"):
            _not_negative(name, getattr(self, name))


@dataclass(frozen=True)
class ClusterModel:
    """A cluster. Between any two workers there is a link of `latency_ms` and `bandwidth_mbps` each way (none: as
    if it took no time), unless `nodes` says that some are on one machine.

    `speeds` are factors by worker number (repeated where there are more workers; none: all 1). A round costs
    `round_ms` beside steps and link: packing, checking, installing; the run's first steps `warmup_s` more than
    others. A worker that is asked for runs after `startup_s`; of those that a run begins with, the last ones come no
    sooner than `arrivals_s`, one each.

    >>> ClusterModel(latency_ms=1, bandwidth_mbps=8).reduction_s(500_000, members=4)
    0.756
    """

    steps: StepTimes = field(default_factory=Constant)
    speeds: tuple[float, ...] = ()
    latency_ms: float = 0.5
    bandwidth_mbps: float | None = None
    nodes: Nodes | None = None
    round_ms: float = 0.0
    warmup_s: float = 0.0
    startup_s: float = 3.0
    arrivals_s: tuple[float, ...] = ()
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
        """How much faster than the model's step times worker `number` is."""
        return self.speeds[number % len(self.speeds)] if self.speeds else 1.0

    def up_s(self, number: int, asked_s: float, workers: int) -> float:
        """When the process of worker `number` runs, in a run of `workers` that asked for it at `asked_s`.

        Numbers count from 0 in the order of asking; from `workers` on they are replacements.

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
        """A ring: each member sends 2(m−1)/m of the vector, in 2(m−1) messages one after the other."""
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
        """A binomial tree: as many messages one after the other as it is deep."""
        inside = self._inside(members)
        between = _depth(math.ceil(members / inside)) * self.link.message_s(size_bytes)
        return between + _depth(inside) * self._inner.message_s(size_bytes)

    def _inside(self, members: int) -> int:
        """How many of them share a machine."""
        return min(members, self.nodes.workers) if self.nodes is not None else 1

    @property
    def _inner(self) -> Link:
        return self.nodes.link if self.nodes is not None else self.link


def _ring_s(link: Link, size_bytes: float, members: int) -> float:
    return 2 * (members - 1) * link.message_s(size_bytes / members)


def _depth(members: int) -> int:
    return math.ceil(math.log2(members))
