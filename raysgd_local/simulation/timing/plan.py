"""The inputs and the result of a simulation of times."""

from __future__ import annotations

from dataclasses import dataclass, field

from raysgd_local.algorithms.learning_rate import LearningRate
from raysgd_local.control.controller import events as c
from raysgd_local.control.controller.boundary import Books
from raysgd_local.control.data.deal import batch_bounds
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.errors import InputError
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.cluster.loss_curve import HalvingLoss, LossCurve
from raysgd_local.simulation.engine.loop import LoopPlan

_DEALT_UP_TO = 256  # most workers for which samples are dealt


@dataclass(frozen=True)
class TimingPlan:
    """The inputs of a simulation of times. Raises `InputError` for methods and clusters that need more than times."""

    program: Program
    workers: int
    cluster: ClusterModel
    loop: LoopPlan
    state_bytes: int = 4_000_000  # bytes that an averaging reduces, without the control slots
    loss: LossCurve = field(default_factory=lambda: HalvingLoss(100_000))  # the assumed training loss
    learning_rate: LearningRate = LearningRate()  # factor on `lr`, by epochs
    lr: float = 1.0  # base learning rate
    seed: int = 0  # of the times

    def __post_init__(self) -> None:
        if self.program.averaging.fraction < 1:
            raise InputError(
                "algorithm.averaging.fraction",
                self.program.averaging.fraction,
                "1 where only time is simulated",
                "one worker stands for all there, and all take the same steps",
            )
        if self.program.probes:
            raise InputError(
                "algorithm.schedule.when",
                "stability",
                "epoch, first-decay or loss where only time is simulated",
                "what comes of trying local steps is not known where nothing is learned",
            )
        failures = self.cluster.failures
        if failures.deaths_per_hour or failures.preemptions_per_hour:
            raise InputError("cluster.failures", failures, "no failures where only time is simulated")
        if self.cluster.arrivals_s:
            raise InputError("cluster.arrivals_s", self.cluster.arrivals_s, "none where only time is simulated")


@dataclass(frozen=True)
class TimedRun:
    """The outcome of a simulation of times."""

    rows: tuple[RoundRow, ...]  # of rounds.csv, with virtual times
    finish: c.Finish
    seconds: float  # virtual time
    books: Books | None  # None if the run ended before its first view


def loop_over(samples: int, epochs: int, batch_size: int, workers: int) -> LoopPlan:
    """Return a task's loop over a training set of `samples`.

    For very many workers samples are not dealt, because that takes longer than all the rest: each worker takes as many
    steps as the longest list has batches, and each epoch ends with an averaging of its own.
    """
    if workers <= _DEALT_UP_TO:
        return LoopPlan(epochs, samples, batch_size, evaluates=False)
    steps = len(batch_bounds(-(-samples // workers), 0, batch_size))
    return LoopPlan(epochs, 0, batch_size, evaluates=False, own_steps=steps)
