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
Exchange = Literal["same", "float32"]
Rounds = Literal["within-epochs", "across-epochs"]


@dataclass(frozen=True)
class Algorithm:
    """A training method: independent choices of when and how workers average, and which data each holds.

    The division follows the Cooperative SGD framework (Wang & Joshi, JMLR 2021).

    Raises InputError for a choice of the wrong kind, and for choices that can't be combined, with the reason (see
    `algorithms.compatibility`).

    >>> Algorithm().schedule
    AdaComm(tau0=16, interval_s=60.0, gamma=0.5)
    """

    schedule: Schedule = field(default_factory=AdaComm)  # when to average
    averaging: Averaging = field(default_factory=Mean)  # with whom members average, and how far they move
    outer: Outer | None = None  # optimizer that applies the mean step to the anchor; None: the model is the mean
    compression: Compression | None = None  # of the steps that members send; None: uncompressed
    placement: ChunkPlacement = field(default_factory=DisjointChunks)  # which worker holds which training data
    optimizer_state: OptimizerState = "keep"  # when averaging: keep each worker's own, reset it, or average it too
    lr_scaling: Scaling = "none"  # of the learning rate with the number of workers (see `learning_rate.scale`)
    weights: Weights = field(default_factory=Samples)  # weight of each member in the mean
    exchange: Exchange = "same"  # type in which bf16 and fp16 parameters travel: their own, or float32
    rounds: Rounds = "within-epochs"  # whether a round ends, or goes on, where an epoch ends

    def __post_init__(self) -> None:
        validation.schedule("schedule", self.schedule)
        validation.has_methods("averaging", self.averaging, ("coupling",), "Mean() or Elastic()")
        if self.outer is not None:
            validation.has_methods("outer", self.outer, ("step",), "an outer step, such as SlowMo(), or None")
        validation.has_methods("placement", self.placement, ("copies_among", "order"), "such as DisjointChunks()")
        validation.has_methods("weights", self.weights, ("weight", "stretch"), "Samples() or FedNova()")
        validation.one_of("optimizer_state", self.optimizer_state, get_args(OptimizerState))
        validation.one_of("lr_scaling", self.lr_scaling, get_args(Scaling))
        validation.one_of("exchange", self.exchange, get_args(Exchange))
        validation.one_of("rounds", self.rounds, get_args(Rounds))
        if self.compression is not None:
            validation.has_methods(
                "compression", self.compression, ("encode", "decode"), "such as Int8(), or None"
            )
        compatibility.check(self)

    @property
    def keeps_anchor(self) -> bool:
        """Whether members must keep the committed parameters besides their own. Plain averaging needs no such copy."""
        coupled, met = self.averaging.coupling(1) is not None, modes(self.schedule)
        compressed = self.compression is not None and met != {"gradients"}
        stretched = not self.weights.plain
        return self.partial or coupled or compressed or stretched or self.outer is not None or "apart" in met

    @property
    def partial(self) -> bool:
        """Whether there are rounds in which not all members average with all."""
        return self.averaging.gossips or "partial" in modes(self.schedule)

    @property
    def delayed(self) -> bool:
        """Whether members go on training while an averaging is under way."""
        return delays(self.schedule)
