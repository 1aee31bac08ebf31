"""What is timed, and what comes of it."""

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

_DEALT_UP_TO = 256  # workers


@dataclass(frozen=True)
class TimingPlan:
    """`workers` workers run `loop` on `cluster`; `state_bytes` is what an averaging reduces, without its slots.

    The training loss goes as `loss` says, the learning rate is `lr` times what `learning_rate` says of the epochs
    that are done.
    """

    program: Program
    workers: int
    cluster: ClusterModel
    loop: LoopPlan
    state_bytes: int = 4_000_000
    loss: LossCurve = field(default_factory=lambda: HalvingLoss(100_000))
    learning_rate: LearningRate = LearningRate()
    lr: float = 1.0
    seed: int = 0

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
    """How it ended, after how many virtual `seconds`: the rows of `rounds.csv` that such a run would write, times
    virtual, and the run's books.
    """

    rows: tuple[RoundRow, ...]
    finish: c.Finish
    seconds: float
    books: Books | None


def loop_over(samples: int, epochs: int, batch_size: int, workers: int) -> LoopPlan:
    """A task's loop over a training set of `samples`.

    For very many workers samples are not dealt one by one, which takes longer than all else: each takes as many
    steps as the longest list has batches, and each epoch ends with an averaging of its own.
    """
    if workers <= _DEALT_UP_TO:
        return LoopPlan(epochs, samples, batch_size, evaluates=False)
    steps = len(batch_bounds(-(-samples // workers), 0, batch_size))
    return LoopPlan(epochs, 0, batch_size, evaluates=False, own_steps=steps)
