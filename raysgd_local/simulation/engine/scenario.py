"""The scenario of a simulated run: everything in the run follows from this record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.control.controller.settings import Settings
from raysgd_local.faults.language import Fault
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.engine.loop import LoopPlan


@dataclass(frozen=True)
class Noise:
    """Random disturbances of messages and start-up."""

    delay_s: float = 0.005  # longest delay of an ordinary message
    late: float = 0.02  # probability of a delay a hundred times as long
    twice: float = 0.05  # probability that a message arrives twice
    sooner: float = 0.8  # largest part of the start-up time by which a worker comes up earlier


@dataclass(frozen=True)
class Limits:
    """The limits by which a run must have ended."""

    events: int = 60_000
    seconds: float = 4_000.0  # virtual time


@dataclass(frozen=True)
class Scenario:
    """One simulated run."""

    settings: Settings
    loop: LoopPlan = field(default_factory=LoopPlan)
    faults: tuple[Fault, ...] = ()
    seed: int = 0  # of all random draws
    workers_a_node: int = 1  # workers that share a node
    cluster: ClusterModel = field(default_factory=ClusterModel)
    state_bytes: int = 1000  # that an averaging reduces, in the random search
    collective_timeout_s: float = 300.0
    noise: Noise = field(default_factory=Noise)
    limits: Limits = field(default_factory=Limits)
    journal: bool = False  # keep the controller's events, to check that they replay
    method: Algorithm = field(default_factory=Algorithm)  # with the program's schedule and averaging

    def with_faults(self, faults: tuple[Fault, ...]) -> Scenario:
        return replace(self, faults=faults)
