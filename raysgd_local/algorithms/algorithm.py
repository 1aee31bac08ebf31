"""A method, composed of independent choices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from raysgd_local.algorithms import checks
from raysgd_local.algorithms.learning_rate import Scaling
from raysgd_local.algorithms.placement import ChunkPlacement, DisjointChunks
from raysgd_local.algorithms.schedules import AdaComm, Schedule
from raysgd_local.errors import InputError

OptimizerState = Literal["keep", "reset", "average"]


@dataclass(frozen=True)
class Algorithm:
    """When workers average, which data each holds, and what becomes of optimizer state and learning rate.

    The choices are independent, after the Cooperative SGD framework (Wang & Joshi, JMLR 2021).

    schedule: when to average; placement: who holds which part of the training set; optimizer_state: what happens
    to momentum when parameters are averaged: `keep` each worker's own, `reset` it, or `average` it too;
    lr_scaling: how the learning rate follows the number of workers, see `learning_rate.scale`.

    Raises InputError for anything else.

    >>> Algorithm().schedule
    AdaComm(tau0=16, interval_s=60.0, gamma=0.5)
    """

    schedule: Schedule = field(default_factory=AdaComm)
    placement: ChunkPlacement = field(default_factory=DisjointChunks)
    optimizer_state: OptimizerState = "keep"
    lr_scaling: Scaling = "none"

    def __post_init__(self) -> None:
        checks.schedule("schedule", self.schedule)
        placement: object = self.placement  # whatever the caller really gave
        if not isinstance(placement, ChunkPlacement):
            raise InputError("placement", placement, "DisjointChunks() or RedundantChunks(copies)")
        checks.one_of("optimizer_state", self.optimizer_state, get_args(OptimizerState))
        checks.one_of("lr_scaling", self.lr_scaling, get_args(Scaling))
