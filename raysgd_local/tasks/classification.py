"""The common part of classification tasks: cross-entropy and accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raysgd_local.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """A task whose batches are `(inputs, targets)`, with class numbers (B,), and whose models return (B, classes)."""

    reports: ClassVar[tuple[str, ...]] = ("accuracy", "loss")

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        from torch.nn import functional as F

        inputs, targets = batch
        return F.cross_entropy(model(inputs), targets)

    def metrics(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return `accuracy` (0 or 1) and `loss` of each sample, (B,)."""
        from torch.nn import functional as F

        inputs, targets = batch
        logits = model(inputs)
        hits = (logits.argmax(dim=1) == targets).float()
        return {"accuracy": hits, "loss": F.cross_entropy(logits, targets, reduction="none")}
