"""One simulated run, whole: everything that happens in it follows from this record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.control.controller.settings import Settings
from raysgd_local.faults.language import Fault
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.engine.loop import LoopPlan


@dataclass(frozen=True)
class Noise:
    """How words travel: each later by up to `delay_s`, some by up to a hundred times that, some twice.

    Workers come up to `sooner` of their start-up time earlier.
    """

    delay_s: float = 0.005
    late: float = 0.02
    twice: float = 0.05
    sooner: float = 0.8


@dataclass(frozen=True)
class Limits:
    """A run has to end by then."""

    events: int = 60_000
    seconds: float = 4_000.0


@dataclass(frozen=True)
class Scenario:
    """`workers_a_node` workers share a machine; an averaging moves `state_bytes` (of a model that is a number).

    `method` says what becomes of the number; its schedule and averaging are the program's.
    """

    settings: Settings
    loop: LoopPlan = field(default_factory=LoopPlan)
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    workers_a_node: int = 1
    cluster: ClusterModel = field(default_factory=ClusterModel)
    state_bytes: int = 1000
    collective_timeout_s: float = 300.0
    noise: Noise = field(default_factory=Noise)
    limits: Limits = field(default_factory=Limits)
    journal: bool = False
    method: Algorithm = field(default_factory=Algorithm)

    def with_faults(self, faults: tuple[Fault, ...]) -> Scenario:
        return replace(self, faults=faults)
