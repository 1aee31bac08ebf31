"""The columns of `rounds.csv`, each with the formula that computes it from a committed round.

To add a column that follows from reduced values, add a field at the end of `RoundRow`, with `absent`. One that workers
measure needs a field of `Contribution` too, which `training/torch_port.py` fills.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from raysgd_local.control.control_slots import Control
from raysgd_local.control.replicated.state import Replicated

T = TypeVar("T")
_NOTHING: Any = MISSING


@dataclass(frozen=True)
class CommittedRound:
    """One member's knowledge of a round at its commit; all but the last two fields are equal on all members."""

    before: Replicated  # the state before the commit
    after: Replicated  # the state after it
    control: Control  # all members' slots
    view: int
    incarnation: int
    scope: str  # of the averaging: global, block, …
    rank: int
    exchange_s: float  # duration of this member's exchange
    overlapped: bool  # whether it took steps meanwhile

    @property
    def wait_s(self) -> float:
        """Mean wait for the slowest member; where steps overlapped the exchange, at most its duration."""
        wait_s = self.control.slowest_s - self.control.compute_s
        return min(wait_s, self.exchange_s) if self.overlapped else wait_s

    @property
    def sync_s(self) -> float:
        """Duration of the exchange without this member's wait for the slowest."""
        own_wait_s = self.control.slowest_s - self.control.members[self.rank].compute_s
        return max(0.0, self.exchange_s - own_wait_s)

    @property
    def elapsed_s(self) -> float:
        """Training time at the end of the round, by the clock of rank 0 (the oldest member)."""
        until_slowest_s = self.control.slowest_s - self.control.members[0].compute_s
        return self.before.elapsed_s + self.control.clock_s + until_slowest_s + self.sync_s


def column(formula: Callable[[CommittedRound], T], absent: T = _NOTHING) -> T:
    """A column and its formula. `absent` stands for it where a table of an earlier version lacks it."""
    return field(default=absent, metadata={"formula": formula})


@dataclass(frozen=True)
class RoundRow:
    """A row of `rounds.csv`: one resolved averaging round. The fields are the columns, in order."""

    round: int = column(lambda c: c.before.round + 1)
    view: int = column(lambda c: c.view)
    incarnation: int = column(lambda c: c.incarnation)  # 1, and 1 more after each return to a checkpoint
    workers: int = column(lambda c: len(c.control.members))
    tau: int = column(lambda c: c.before.period.tau)
    scope: str = column(lambda c: c.scope if c.after.partial else "global")
    steps: int = column(lambda c: c.control.steps)  # of this round, summed over workers
    samples: int = column(lambda c: c.control.samples)  # of this round, summed over workers
    epoch: int = column(lambda c: c.before.epoch)  # the open epoch, from 0
    elapsed_s: float = column(lambda c: c.elapsed_s)  # training time since the run began
    compute_s: float = column(lambda c: c.control.compute_s)  # mean over workers
    sync_s: float = column(lambda c: c.sync_s)  # communication
    wait_s: float = column(lambda c: c.wait_s)  # mean over workers
    wire_bytes: int = column(lambda _: 0)  # summed over workers; known one round later, filled in then
    loss: float = column(lambda c: c.control.loss)  # mean training loss of the round; NaN where nobody took a step
    lr: float = column(lambda c: c.control.members[0].lr)

    @staticmethod
    def of(committed: CommittedRound) -> RoundRow:
        """The row of a round that is being committed."""
        return RoundRow(**{name: formula(committed) for name, formula in _FORMULAS})


_FORMULAS = tuple((column.name, column.metadata["formula"]) for column in fields(RoundRow))
COLUMNS = tuple(name for name, _ in _FORMULAS)
ABSENT = {column.name: column.default for column in fields(RoundRow) if column.default is not MISSING}
"""Values for the columns that a table of an earlier version may lack."""
