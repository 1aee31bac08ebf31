"""What a schedule is: an `init`/`next` pair over a frozen state, run identically by every member."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Mode = Literal["parameters", "gradients", "apart", "partial"]

LONGEST = 1_000_000
"""Local steps of a period that has no limit of its own: rounds end with the epoch anyhow."""


@dataclass(frozen=True)
class Probe:
    """What members try before the next round's first step; none of it counts, and all of it is undone.

    `steps` local steps on the batches that come next, and the mean of where they lead, are looked at on the
    `held_out` batches after those, a worker. With no `steps` members look from where they are.
    """

    steps: int
    held_out: int


@dataclass(frozen=True)
class Compared:
    """What a probe found: the mean loss over the held-out batches after local steps and after as many synchronous ones,
    and the standard error of the difference, whose unit is a batch.
    """

    local: float
    synchronous: float
    error: float


@dataclass(frozen=True)
class Period:
    """What happens until the next averaging.

    `tau` local optimizer steps, then one exchange of `parameters`; or, with `gradients`, one exchange of
    gradients before every optimizer step (then `tau` is 1). With `apart` members exchange parameters only so that
    all know the mean, which is evaluated and written into checkpoints, and go on from their own; they become the
    mean with the round after which the mode is another. With `partial` members average with some others only, or not
    at all, as the averaging says; but with all if one is further than `delta` from the anchor, squared. `why`
    explains the newest change, for people. `probe` says what members try before.
    Members go on for `delay` steps of the next period while the averaging travels.
    """

    tau: int
    mode: Mode = "parameters"
    why: str = ""
    delta: float | None = None
    probe: Probe | None = field(default=None, repr=False)
    delay: int = field(default=0, repr=False)


@dataclass(frozen=True)
class Observation:
    """What all members know alike after a committed round: reduced values only, no one's own clock.

    `loss` is the round's mean training loss over its `round_samples` (those of workers whose state is finite);
    `samples` and `steps` are totals over all workers since the run began, `epoch` the one (from 0) that the next
    round is in, `elapsed_s` training time, `lr_decay` the learning-rate schedule's decay factor alone (no warm-up,
    no scaling with workers; 1 at the start), `lr` the first parameter group's rate as if warm-up were over. `whole`:
    all members averaged with all in this round. `rounds_left` is how many more rounds every member's list of the open
    epoch is good for, if they are as this one was (0 where the loop takes no data from us), `compared` what a probe
    found that ended with this round.
    """

    round: int
    loss: float
    round_samples: int
    samples: int
    steps: int
    epoch: int
    elapsed_s: float
    lr_decay: float
    workers: int
    lr: float = 1.0
    whole: bool = True
    rounds_left: int = 0
    compared: Compared | None = None


class Schedule(Protocol):
    """When to average. States are frozen dataclasses that have a `period`; equal inputs give equal states.

    `restore(to_plain(state))` gives the state back (a checkpoint is that plain form).
    """

    def init(self) -> Any: ...

    def next(self, state: Any, seen: Observation) -> Any: ...

    def restore(self, plain: dict[str, Any]) -> Any: ...
