"""The program that members run on their own between two messages from the controller."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from raysgd_local.algorithms.averaging import Averaging, Mean
from raysgd_local.algorithms.schedules.base import Mode, Schedule
from raysgd_local.algorithms.schedules.modes import delays, modes, probes
from raysgd_local.control.replicated.balancing import Balance


@dataclass(frozen=True)
class Program:
    """When and with whom members average, and when training is over. The same on all members."""

    schedule: Schedule
    segment_s: float = 5.0  # a segment ends after this much training time,
    segment_rounds: int = 1_000_000  # or after this many rounds
    max_steps: int | None = None  # end of training, in optimizer steps over all workers
    max_s: float | None = None  # end of training, in training time
    target: tuple[str, float] | None = (
        None  # name and value of a metric that ends training (see `endings.is_error`)
    )
    balance: Balance | None = None  # straggler balancing; None: all take equal numbers of steps
    averaging: Averaging = field(default_factory=Mean)
    whole: bool = False  # make the next averaging global and without delay: a joiner or checkpoint needs the model
    across_epochs: bool = False  # rounds go on where an epoch ends
    batch_scale: tuple[float, ...] = ()  # factor on each rank's batch size; 1 for further ranks

    @cached_property
    def partial(self) -> bool:
        """Whether there are rounds in which not all members average with all."""
        return self.averaging.gossips or "partial" in modes(self.schedule)

    @cached_property
    def delayed(self) -> bool:
        """Whether members go on training while an averaging is under way."""
        return delays(self.schedule)

    @cached_property
    def probes(self) -> bool:
        """Whether the schedule uses probes: steps that are tried and undone."""
        return probes(self.schedule)

    def scale_of(self, rank: int) -> float:
        """Return the factor on the batch size of the worker at `rank`.

        >>> from raysgd_local.algorithms.schedules import FixedPeriod
        >>> program = Program(FixedPeriod(8), batch_scale=(1.0, 0.5))
        >>> [program.scale_of(rank) for rank in range(3)]
        [1.0, 0.5, 1.0]
        """
        return self.batch_scale[rank] if rank < len(self.batch_scale) else 1.0

    def stages(self, mode: Mode) -> bool:
        """Whether a round of `mode` has two stages: reduce control data, then average to the extent they imply."""
        return self.partial and mode in ("parameters", "partial")
