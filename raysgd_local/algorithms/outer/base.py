"""What an outer step is: an optimizer on the anchor, told anew each round what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

Option = float | bool | list[float]


@dataclass(frozen=True)
class OuterStep:
    """One step on the anchor by g = anchor − mean.

    `optimizer` is a class of `torch.optim` by name, with these `options` from this round on; its
    buffers go on. Before, g is multiplied by `scale` and then, with `max_norm`, shortened to that norm.
    """

    optimizer: str = "SGD"
    options: Mapping[str, Option] = field(default_factory=dict)
    scale: float = 1.0
    max_norm: float | None = None


class Outer(Protocol):
    """What becomes of the mean step. A frozen dataclass, the same on all members.

    Its state (the optimizer's buffers, and the anchor) is replicated: every member takes the same step on the same
    reduced values, joiners and checkpoints get it, and a death takes nothing of it away.
    """

    def step(self, workers: int, lr: float) -> OuterStep | None:
        """The step after a round of `workers` members whose local learning rate was `lr` at its beginning.

        None: the anchor becomes the mean, and the buffers begin anew.
        """
        ...
