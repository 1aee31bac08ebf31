"""What members run by themselves between two words with the controller."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from raysgd_local.algorithms.averaging import Averaging, Mean
from raysgd_local.algorithms.schedules.base import Mode, Schedule
from raysgd_local.algorithms.schedules.modes import delays, modes, probes
from raysgd_local.control.replicated.balancing import Balance


@dataclass(frozen=True)
class Program:
    """The same on all members: when and with whom they average, how far to go without asking, and when training is
    over.

    A segment ends after `segment_s` seconds of training time or `segment_rounds` rounds. `max_steps` counts
    optimizer steps over all workers, `max_s` is training time; `target` is a metric's name and the value to
    reach (from above where the name says that it is a loss or an error). `balance` says how workers of unequal speed
    share a round's steps; without it all take the same. `whole`: the next averaging is over all members in any case,
    and nobody goes on while it travels, since somebody waits for the model. `batch_scale`: by rank, what a worker's
    batch size is multiplied by; ranks beyond it have 1.
    """

    schedule: Schedule
    segment_s: float = 5.0
    segment_rounds: int = 1_000_000
    max_steps: int | None = None
    max_s: float | None = None
    target: tuple[str, float] | None = None
    balance: Balance | None = None
    averaging: Averaging = field(default_factory=Mean)
    whole: bool = False
    batch_scale: tuple[float, ...] = ()

    @cached_property
    def partial(self) -> bool:
        """Whether there are rounds in which members don't average with all others."""
        return self.averaging.gossips or "partial" in modes(self.schedule)

    @cached_property
    def delayed(self) -> bool:
        """Whether members go on while an averaging travels."""
        return delays(self.schedule)

    @cached_property
    def probes(self) -> bool:
        """Whether members try steps that don't count."""
        return probes(self.schedule)

    def scale_of(self, rank: int) -> float:
        """What the batch size of the worker at `rank` is multiplied by.

        >>> from raysgd_local.algorithms.schedules import FixedPeriod
        >>> program = Program(FixedPeriod(8), batch_scale=(1.0, 0.5))
        >>> [program.scale_of(rank) for rank in range(3)]
        [1.0, 0.5, 1.0]
        """
        return self.batch_scale[rank] if rank < len(self.batch_scale) else 1.0

    def stages(self, mode: Mode) -> bool:
        """Whether in a round of `mode` members first hear of each other, and how far they average follows from that."""
        return self.partial and mode in ("parameters", "partial")
