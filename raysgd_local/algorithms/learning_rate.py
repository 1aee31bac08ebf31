"""The learning rate as a pure function of training progress and of the number of workers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from raysgd_local.algorithms import validation
from raysgd_local.errors import InputError

Decay = Literal["constant", "multistep", "cosine"]
Scaling = Literal["none", "linear", "sqrt"]

WARMUP_BEGIN = 0.1  # factor at the start without scaling; with 0 the first step would change nothing


def scale(scaling: Scaling, workers: int) -> float:
    """Return the factor on the single-worker learning rate for `workers` workers. The period has no influence.

    Linear: Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017, section 2.1. Square
    root: keeps the variance of a step, Krizhevsky, "One weird trick for parallelizing convolutional neural
    networks", 2014, section 5.

    >>> scale("none", 4), scale("linear", 4), scale("sqrt", 4)
    (1.0, 4.0, 2.0)
    """
    if scaling == "none":
        return 1.0
    return float(workers) if scaling == "linear" else math.sqrt(workers)


@dataclass(frozen=True)
class LearningRate:
    """The learning rate's factor over training. Progress is measured in epochs: samples of all workers / data set size.

    Raises InputError for a value out of range, and for milestones or epochs that the kind doesn't use.

    >>> LearningRate("multistep", milestones=(5, 8), gamma=0.1).decay(6.5)
    0.1
    >>> LearningRate("cosine", epochs=10).decay(5)
    0.5
    """

    # `cosine` is Loshchilov & Hutter's (ICLR 2017), without restarts
    kind: Decay = field(default="constant", metadata={"alternative": True})
    milestones: tuple[float, ...] = ()  # epochs, ascending, at which `multistep` multiplies the rate by `gamma`
    gamma: float = 0.1  # of `multistep`
    epochs: float | None = None  # epochs over which `cosine` falls from 1 to 0
    warmup_epochs: float = 0.0  # epochs of linear warm-up

    def __post_init__(self) -> None:
        validation.one_of("kind", self.kind, get_args(Decay))
        self._check_milestones()
        validation.number("gamma", self.gamma, above=0, at_most=1)
        self._check_epochs()
        if self.warmup_epochs != 0:
            validation.number("warmup_epochs", self.warmup_epochs, above=0)

    def decay(self, epochs_done: float) -> float:
        """Return the decay factor alone, 1 at the start. Averaging schedules see this one, without warm-up."""
        if self.kind == "multistep":
            return float(self.gamma ** sum(epochs_done >= milestone for milestone in self.milestones))
        if self.kind == "cosine" and self.epochs is not None:
            done = min(1.0, epochs_done / self.epochs)
            return 0.5 + 0.5 * math.cos(math.pi * done)
        return 1.0

    def warmup(self, epochs_done: float, scaling: Scaling = "none", workers: int = 1) -> float:
        """Return the factor of warm-up and scaling together: it rises linearly to `scale(scaling, workers)`.

        With scaling it begins at the single-worker rate (Goyal et al. 2017, section 2.2), otherwise at a tenth.

        >>> rate = LearningRate(warmup_epochs=5)
        >>> [rate.warmup(done, "linear", workers=5) for done in (0, 2.5, 5, 9)]
        [1.0, 3.0, 5.0, 5.0]
        """
        end = scale(scaling, workers)
        if epochs_done >= self.warmup_epochs:
            return end
        begin = WARMUP_BEGIN if scaling == "none" else 1.0
        return begin + (end - begin) * epochs_done / self.warmup_epochs

    def factor(self, epochs_done: float, scaling: Scaling = "none", workers: int = 1) -> float:
        """Return the factor on the optimizer's own rate: decay × warm-up × scaling."""
        return self.decay(epochs_done) * self.warmup(epochs_done, scaling, workers)

    def _check_milestones(self) -> None:
        allowed = "a list of ascending epochs above 0"
        if self.kind != "multistep":
            if self.milestones:
                raise InputError("milestones", self.milestones, f"none with kind {self.kind}")
            return
        if not isinstance(self.milestones, tuple) or not self.milestones:
            raise InputError("milestones", self.milestones, allowed, "kind multistep needs some")
        for milestone in self.milestones:
            validation.number("milestones", milestone, above=0)
        if list(self.milestones) != sorted(set(self.milestones)):
            raise InputError("milestones", self.milestones, allowed)

    def _check_epochs(self) -> None:
        if self.kind == "cosine":
            validation.number("epochs", self.epochs, above=0)
        elif self.epochs is not None:
            raise InputError("epochs", self.epochs, f"none with kind {self.kind}")
