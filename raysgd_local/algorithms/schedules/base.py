"""The interface of schedules: an `init`/`next` pair over a frozen state, run identically by every member."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Mode = Literal["parameters", "gradients", "apart", "partial"]

LONGEST = 1_000_000
"""Local steps of a period without a limit of its own: a round ends with the epoch in any case."""


@dataclass(frozen=True)
class Probe:
    """A trial before the next round's first step: take local steps, average, measure the loss, and undo it all."""

    steps: int  # local steps of each worker, on its next batches; 0: measure the present model
    held_out: int  # batches of each worker on which the loss is measured; they follow those of the steps


@dataclass(frozen=True)
class Compared:
    """The result of a probe: mean losses over the held-out batches of all workers."""

    local: float  # after local steps and one averaging
    synchronous: float  # after as many synchronous steps
    error: float  # standard error of the difference, over batches


@dataclass(frozen=True)
class Period:
    """The local steps until the next averaging, and the kind of that averaging.

    Modes: `parameters`: all members average their parameters.
    `gradients`: all members average their gradients before every optimizer step.
    `partial`: members average with some others only or not at all, as the `Averaging` says.
    `apart`: members compute the mean, for evaluation and checkpoints, but go on from their own parameters. They adopt
    the mean in the last round before the mode changes.
    """

    tau: int  # local optimizer steps until the next averaging; 1 with `gradients`
    mode: Mode = "parameters"
    why: str = ""  # reason for the newest change, in words
    delta: float | None = None  # with `partial`: average with all if any ‖x_i − anchor‖² is larger
    probe: Probe | None = field(default=None, repr=False)  # to be tried before the first step
    delay: int = field(default=0, repr=False)  # steps that members go on for while the averaging is under way


@dataclass(frozen=True)
class Observation:
    """The data on which a schedule decides after a committed round: reduced values, so equal on all members."""

    round: int  # number of the committed round, from 1
    loss: float  # mean training loss of this round over `round_samples`
    round_samples: int  # samples in this round, of workers whose state is finite
    samples: int  # samples of all workers since the run began
    steps: int  # optimizer steps of all workers since the run began
    epoch: int  # epoch of the next round, from 0
    elapsed_s: float  # training time since the run began
    lr_decay: float  # decay factor of the learning rate, without warm-up and scaling; 1 at the start
    workers: int  # members of the view
    lr: float = 1.0  # learning rate of the first parameter group, as if warm-up were over
    whole: bool = True  # whether all members averaged with all in this round
    rounds_left: int = 0  # more rounds like this for which all members have data in this epoch; 0 if not known
    compared: Compared | None = None  # result of a probe that ended with this round


class Schedule(Protocol):
    """Decides when to average. States are frozen dataclasses with a field `period`; equal inputs give equal states."""

    def init(self) -> Any:
        """Return the state before the first round."""
        ...

    def next(self, state: Any, seen: Observation) -> Any:
        """Return the state after a committed round."""
        ...

    def restore(self, plain: dict[str, Any]) -> Any:
        """Rebuild a state from `to_plain(state)`, the form in which checkpoints hold it."""
        ...
