"""Frozen records that cross borders, and their plain (JSON) form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from raysgd_local.serialization import from_plain, to_plain

__all__ = ["EvalRow", "PeriodChange", "from_plain", "replace", "to_plain"]

T = TypeVar("T")


def replace(record: T, /, **changes: Any) -> T:
    """`dataclasses.replace` for frozen records that are nothing but their fields, and check nothing when made.

    Ten times as fast, which matters where it is done at every training step.

    >>> replace(PeriodChange(round=3, before=8, after=4, why="the loss fell"), after=2).after
    2
    """
    if not changes.keys() <= record.__dict__.keys():
        raise TypeError(f"{type(record).__name__} has no {', '.join(changes.keys() - record.__dict__.keys())}")
    changed: T = object.__new__(type(record))
    changed.__dict__.update(record.__dict__, **changes)
    return changed


@dataclass(frozen=True)
class EvalRow:
    """A row of `evals.csv`: the averaged model on held-out data, after resolved round `round`."""

    round: int
    steps: int
    samples: int
    epoch: int
    elapsed_s: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class PeriodChange:
    """After round `round` the period went from `before` to `after` local steps, and why; or it stayed, since a probe
    found what `why` says.
    """

    round: int
    before: int
    after: int
    why: str
