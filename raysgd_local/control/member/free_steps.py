"""Local steps that a loop takes by itself: what a member need not be asked about, it is told of afterwards."""

from __future__ import annotations

from raysgd_local.control.member.events import StepsTaken


class Allowance:
    """What a shell keeps between two events: how many steps the loop may take (`Proceed.free`), and which it took.

    For a step in the middle of a round a member has nothing to decide. Asking it all the same takes a training process
    a tenth of a millisecond, since between two steps all but the model leaves the processor's caches.
    """

    def __init__(self) -> None:
        self._free = self._steps = self._samples = self._consumed = 0

    def grant(self, free: int) -> None:
        self._free = free

    @property
    def free(self) -> bool:
        """Whether the loop may take the next step by itself, if nothing came from outside meanwhile."""
        return self._free > 0

    def take(self, samples: int, consumed: int) -> int:
        """The loop takes one. Says how many samples those that it took before had."""
        before = self._samples
        self._free -= 1
        self._steps += 1
        self._samples += samples
        self._consumed += consumed
        return before

    def ended(self) -> tuple[StepsTaken, ...]:
        """What the member must hear of before any other event, after which it is asked again."""
        self._free = 0
        if not self._steps:
            return ()
        taken = StepsTaken(self._steps, self._samples, self._consumed)
        self._steps = self._samples = self._consumed = 0
        return (taken,)
