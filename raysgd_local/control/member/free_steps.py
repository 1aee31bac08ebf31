"""Free steps: local steps that a loop takes without asking its member, which hears of them afterwards."""

from __future__ import annotations

from raysgd_local.control.member.events import StepDue, StepsTaken, StreamPosition


class Allowance:
    """The shell's count of free steps between two events: how many are left (`Proceed.free`), how many were taken.

    In the middle of a round a member has nothing to decide. Asking it anyway costs a training process a tenth of a
    millisecond, because each step evicts everything but the model from the processor's caches.
    """

    def __init__(self) -> None:
        self._free = 0
        self._forget()

    def _forget(self) -> None:
        self._steps = self._samples = self._consumed = self._further = self._stepping = 0
        self._reached: StreamPosition | None = None

    def grant(self, free: int) -> None:
        """Allow the next `free` steps."""
        self._free = free

    @property
    def free(self) -> bool:
        """Whether the next step is free. If an event has come from outside, it is not: the member hears of it first."""
        return self._free > 0

    def take(self, due: StepDue) -> int:
        """Count a step. Return the number of samples in the free steps before it."""
        before = self._samples
        self._free -= 1
        self._steps += 1
        self._samples += due.samples
        self._consumed += due.consumed
        self._further += due.further
        self._stepping = due.stepping
        self._reached = due.reached or self._reached
        return before

    def ended(self) -> tuple[StepsTaken, ...]:
        """End the allowance. Return the event that the member must hear before any other, if steps were taken."""
        self._free = 0
        if not self._steps:
            return ()
        taken = StepsTaken(
            self._steps, self._samples, self._consumed, self._further, self._stepping, self._reached
        )
        self._forget()
        return (taken,)
