"""Keep the loop's schedulers of learning rates equal on all members, though their loops step them unequally often."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, ReduceLROnPlateau


class Schedulers:
    """Torch's schedulers that were passed to `ctx.prepare_scheduler`, except `ReduceLROnPlateau`.

    A loop steps a scheduler after each `ctx.step`, or after each epoch. In the first case a member falls behind whose
    part of a round has fewer steps than another's: its list is shorter, it is slower, it was not drawn. A joiner falls
    behind too, since it gets the state of a donor that is inside `ctx.step`; a resumed run gets that of a checkpoint.
    So this class steps them where the loop would have: a round has as many steps as the member with the most.
    """

    def __init__(self) -> None:
        self.prepared: list[LRScheduler] = []
        self._first: list[int] = []  # counts before this epoch's first optimizer step
        self._steps = 0  # optimizer steps of the loop in this epoch, the present one included
        self._paces: list[float] = []  # by scheduler, its steps per optimizer step, as last seen within an epoch
        self._owed: list[float] = []  # by scheduler, steps that it has yet to take: less than 1 each
        self._in_step = False  # the loop is inside `ctx.step`: it will step its schedulers afterwards

    def add(self, scheduler: LRScheduler) -> None:
        """Take a scheduler of the loop."""
        if not isinstance(scheduler, ReduceLROnPlateau):  # its steps need a metric, and come with evaluations
            self.prepared.append(scheduler)
            self._paces.append(0.0)
            self._owed.append(0.0)

    @property
    def position(self) -> int:
        """The number of steps that all schedulers have taken."""
        return sum(self._counts())

    def step_begins(self) -> None:
        """The loop enters `ctx.step`."""
        counts = self._counts()
        if self._steps == 0:
            self._first = counts
        else:
            self._paces = [(now - first) / self._steps for now, first in zip(counts, self._first, strict=True)]
        self._steps += 1
        self._in_step = True

    def step_ends(self) -> None:
        """The loop leaves `ctx.step`."""
        self._in_step = False

    def epoch_ends(self) -> None:
        """Begin to count anew: a scheduler that is stepped between two epochs has no pace within one."""
        self._steps = 0

    def reach(self, position: int) -> None:
        """Step those that the loop steps with the optimizer until all together are at `position`, if behind it."""
        behind, pace = position - self.position, sum(self._paces)
        if behind > 0 and pace > 0:
            self.miss(behind / pace)

    def miss(self, steps: float) -> None:
        """Step each scheduler as often as the loop would have in so many further optimizer steps."""
        for number, (scheduler, pace) in enumerate(zip(self.prepared, self._paces, strict=True)):
            self._owed[number] += steps * pace
            while self._owed[number] >= 1 - 1e-9:
                self._owed[number] -= 1
                _step(scheduler)

    def state(self) -> dict[str, Any]:
        """Return what a joiner or a resumed run needs: the paces, and the steps that the loop is about to take."""
        return {"paces": list(self._paces), "pending": self._pending()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take a `state` over, and the pending steps, after the schedulers' own states."""
        if len(state.get("paces", ())) != len(self.prepared):
            return  # of an older version, or of another loop
        self._paces = list(state["paces"])
        for scheduler, pending in zip(self.prepared, state["pending"], strict=True):
            for _ in range(pending):
                _step(scheduler)

    def _pending(self) -> list[int]:
        if not self._in_step:
            return [0 for _ in self.prepared]
        expected = [first + pace * self._steps for first, pace in zip(self._first, self._paces, strict=True)]
        return [max(0, round(until - now)) for until, now in zip(expected, self._counts(), strict=True)]

    def _counts(self) -> list[int]:
        return [_count(scheduler) for scheduler in self.prepared]


def _count(scheduler: LRScheduler) -> int:
    """Return the number of steps that a scheduler has taken. A chained one has no count of its own."""
    while isinstance(scheduler, ChainedScheduler):
        scheduler = scheduler._schedulers[0]
    return scheduler.last_epoch


def _step(scheduler: LRScheduler) -> None:
    """Step once. One that is at its end (`OneCycleLR`) stays there: the loop's own next step says so."""
    with suppress(ValueError):
        scheduler.step()
