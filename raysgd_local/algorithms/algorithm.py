"""A method, composed of independent choices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from raysgd_local.algorithms import compatibility, validation
from raysgd_local.algorithms.averaging import Averaging, Mean
from raysgd_local.algorithms.compression import Compression
from raysgd_local.algorithms.learning_rate import Scaling
from raysgd_local.algorithms.outer import Outer
from raysgd_local.algorithms.placement import ChunkPlacement, DisjointChunks
from raysgd_local.algorithms.schedules import AdaComm, Schedule
from raysgd_local.algorithms.schedules.modes import delays, modes
from raysgd_local.algorithms.weights import Samples, Weights

OptimizerState = Literal["keep", "reset", "average"]


@dataclass(frozen=True)
class Algorithm:
    """When workers average, how, which data each holds, and what becomes of optimizer state and learning rate.

    The choices are independent, after the Cooperative SGD framework (Wang & Joshi, JMLR 2021).

    schedule: when to average; averaging: how far members go to each other; outer: what becomes of the mean step
    (None: nothing); compression: in what form members' steps travel (None: as they are); placement: who holds which
    part of the training set; optimizer_state: what happens to momentum when parameters are averaged: `keep` each
    worker's own, `reset` it, or `average` it too; lr_scaling: how the learning rate follows the number of workers,
    see `learning_rate.scale`; weights: how much each member counts in the mean.

    Raises InputError for anything else, and for what can't be combined (`combinations`), with the reason.

    >>> Algorithm().schedule
    AdaComm(tau0=16, interval_s=60.0, gamma=0.5)
    """

    schedule: Schedule = field(default_factory=AdaComm)
    averaging: Averaging = field(default_factory=Mean)
    outer: Outer | None = None
    compression: Compression | None = None
    placement: ChunkPlacement = field(default_factory=DisjointChunks)
    optimizer_state: OptimizerState = "keep"
    lr_scaling: Scaling = "none"
    weights: Weights = field(default_factory=Samples)

    def __post_init__(self) -> None:
        validation.schedule("schedule", self.schedule)
        validation.has_methods("averaging", self.averaging, ("coupling",), "Mean() or Elastic()")
        if self.outer is not None:
            validation.has_methods("outer", self.outer, ("step",), "an outer step, such as SlowMo(), or None")
        validation.has_methods("placement", self.placement, ("copies_among", "order"), "such as DisjointChunks()")
        validation.has_methods("weights", self.weights, ("weight", "stretch"), "Samples() or FedNova()")
        validation.one_of("optimizer_state", self.optimizer_state, get_args(OptimizerState))
        validation.one_of("lr_scaling", self.lr_scaling, get_args(Scaling))
        if self.compression is not None:
            validation.has_methods(
                "compression", self.compression, ("encode", "decode"), "such as Int8(), or None"
            )
        compatibility.check(self)

    @property
    def keeps_anchor(self) -> bool:
        """Whether members need the committed parameters beside their own: plain averaging does not."""
        coupled, met = self.averaging.coupling(1) is not None, modes(self.schedule)
        compressed = self.compression is not None and met != {"gradients"}
        stretched = not self.weights.plain
        return self.partial or coupled or compressed or stretched or self.outer is not None or "apart" in met

    @property
    def partial(self) -> bool:
        """Whether there are rounds in which members don't average with all others."""
        return self.averaging.gossips or "partial" in modes(self.schedule)

    @property
    def delayed(self) -> bool:
        """Whether members go on while an averaging travels."""
        return delays(self.schedule)
