"""The interface of outer steps: each round they choose the optimizer step that moves the anchor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

Option = float | bool | list[float]


@dataclass(frozen=True)
class OuterStep:
    """One optimizer step on the anchor, with the gradient g = anchor − mean. The optimizer keeps its buffers."""

    optimizer: str = "SGD"  # name of a class of `torch.optim`
    options: Mapping[str, Option] = field(default_factory=dict)  # its arguments from this round on
    scale: float = 1.0  # factor on g
    max_norm: float | None = None  # largest norm of scale·g; None for no limit


class Outer(Protocol):
    """Applies the mean of the members' steps to the anchor. A frozen dataclass, the same on all members.

    Its state (the anchor and the optimizer's buffers) is replicated: every member takes the same step on the same
    reduced values. So joiners and checkpoints get it, and no failure can lose it.
    """

    def step(self, workers: int, lr: float) -> OuterStep | None:
        """Return the step after a round of `workers` members whose local learning rate was `lr` at its beginning.

        None means: set the anchor to the mean, and reset the optimizer's buffers.
        """
        ...
