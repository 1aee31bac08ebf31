"""Keep the loop's schedulers of learning rates equal on all members, though their loops step them unequally often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, ReduceLROnPlateau


class Schedulers:
    """Torch's schedulers that were passed to `ctx.prepare_scheduler`, except `ReduceLROnPlateau`.

    A loop steps a scheduler after each `ctx.step`, or after each epoch. In the first case a member falls behind whose
    part of a round has fewer steps than another's: its list is shorter, it is slower, it was not drawn. A joiner falls
    behind too, since it gets the state of a donor that is inside `ctx.step`; a resumed run gets that of a checkpoint.
    So this class steps them where the loop would have: a round has as many steps as the member with the most.

    Where the loop steps optimizers by name, a scheduler goes with the steps of its own optimizer. `stepping` holds the
    optimizers' bits; 0: all of them, or in `miss` and `reach` any.
    """

    def __init__(self) -> None:
        self.prepared: list[LRScheduler] = []
        self._bits: list[int] = []  # by scheduler, the bit of its optimizer; 0 if that was not prepared
        self._first: list[int] = []  # counts before the epoch's first step of their optimizers
        self._taken: list[int] = []  # by scheduler, its optimizer's steps in this epoch, the present one included
        self._steps = 0  # optimizer steps of the loop in this epoch, the present one included
        self._paces: list[
            float
        ] = []  # by scheduler, its steps per step of its optimizer, as last seen in an epoch
        self._shares: list[float] = []  # by scheduler, its optimizer's share of the loop's steps, as last seen
        self._owed: list[float] = []  # by scheduler, steps that it has yet to take: less than 1 each
        self._in_step = False  # the loop is inside `ctx.step`: it will step its schedulers afterwards

    def add(self, scheduler: LRScheduler) -> None:
        """Take a scheduler of the loop."""
        if not isinstance(scheduler, ReduceLROnPlateau):  # its steps need a metric, and come with evaluations
            self.prepared.append(scheduler)
            self._bits.append(0)
            self._first.append(0)
            self._taken.append(0)
            self._paces.append(0.0)
            self._shares.append(1.0)
            self._owed.append(0.0)

    def know(self, optimizers: Sequence[Optimizer]) -> None:
        """Learn the order of the optimizers."""
        numbers = {id(optimizer): number for number, optimizer in enumerate(optimizers)}
        own = [numbers.get(id(scheduler.optimizer)) for scheduler in self.prepared]
        self._bits = [0 if number is None else 1 << number for number in own]

    def position(self, stepping: int = 0) -> int:
        """Return the number of steps that the schedulers of these optimizers have taken together."""
        counts = self._counts()
        return sum(counts[number] for number in self._of(stepping))

    def _of(self, stepping: int) -> list[int]:
        """Return the numbers of these optimizers' schedulers."""
        return [i for i, bit in enumerate(self._bits) if not stepping or not bit or bit & stepping]

    def step_begins(self, stepping: int = 0) -> None:
        """The loop enters `ctx.step` of these optimizers."""
        counts = self._counts()
        self._steps += 1
        for number in self._of(stepping):
            if self._taken[number] == 0:
                self._first[number] = counts[number]
            else:
                self._paces[number] = (counts[number] - self._first[number]) / self._taken[number]
            self._taken[number] += 1
            self._shares[number] = self._taken[number] / self._steps
        self._in_step = True

    def step_ends(self) -> None:
        """The loop leaves `ctx.step`."""
        self._in_step = False

    def epoch_ends(self) -> None:
        """Begin to count anew: a scheduler that is stepped between two epochs has no pace within one."""
        self._steps = 0
        self._taken = [0 for _ in self.prepared]

    def reach(self, position: int, stepping: int = 0) -> None:
        """Step those that the loop steps with these optimizers until all together are at `position`, if behind it."""
        behind, pace = position - self.position(stepping), sum(self._rates(stepping).values())
        if behind > 0 and pace > 0:
            self.miss(behind / pace, stepping)

    def miss(self, steps: float, stepping: int = 0) -> None:
        """Step each scheduler as often as the loop would have in so many further steps of these optimizers."""
        for number, rate in self._rates(stepping).items():
            self._owed[number] += steps * rate
            while self._owed[number] >= 1 - 1e-9:
                self._owed[number] -= 1
                _step(self.prepared[number])

    def _rates(self, stepping: int) -> dict[int, float]:
        """Return by scheduler its steps per step of these optimizers; if none is named, per step of the loop."""
        return {i: self._paces[i] * (1.0 if stepping else self._shares[i]) for i in self._of(stepping)}

    def state(self) -> dict[str, Any]:
        """Return what a joiner or a resumed run needs: the paces, and the steps that the loop is about to take."""
        return {"paces": list(self._paces), "shares": list(self._shares), "pending": self._pending()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take a `state` over, and the pending steps, after the schedulers' own states."""
        paces = state.get("paces", [])
        if len(paces) != len(self.prepared):
            return  # of an older version, or of another loop
        self._paces = list(paces)
        self._shares = list(state.get("shares", self._shares))
        for scheduler, pending in zip(self.prepared, state.get("pending", []), strict=False):
            for _ in range(pending):
                _step(scheduler)

    def _pending(self) -> list[int]:
        if not self._in_step:
            return [0 for _ in self.prepared]
        taken = zip(self._first, self._paces, self._taken, strict=True)
        expected = [first + pace * steps if steps else 0 for first, pace, steps in taken]
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
