"""What classification tasks share: cross-entropy and accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from raysgd_local.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Batches are `(inputs, targets)`, with targets (B,) of class numbers; models give logits (B, classes)."""

    reports: ClassVar[tuple[str, ...]] = ("accuracy", "loss")

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        from torch.nn import functional as F

        inputs, targets = batch
        return F.cross_entropy(model(inputs), targets)

    def metrics(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """`accuracy` in [0, 1] and `loss`, a value a sample."""
        from torch.nn import functional as F

        inputs, targets = batch
        logits = model(inputs)
        hits = (logits.argmax(dim=1) == targets).float()
        return {"accuracy": hits, "loss": F.cross_entropy(logits, targets, reduction="none")}
