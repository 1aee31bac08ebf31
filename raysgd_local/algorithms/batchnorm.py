"""BatchNorm's running statistics, pooled over replicas as if one had seen all batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from raysgd_local.flat import FlatLayout


class PooledStatistics:
    """Running means and variances of all normalisation layers that keep them.

    The pooled variance has the spread of the means in it, σ̄² = Σp(σ² + d²) − (Σp d)², with d = μ − a. The last
    committed mean a, equal on all members, takes the place of 0 so that large means don't cancel the variance away.
    """

    def __init__(self, layers: dict[str, nn.Module], dtype: torch.dtype) -> None:
        self._layers: list[Any] = list(layers.values())
        self._dtype = dtype
        self._layout = FlatLayout.like(self._means())
        self.numel = 2 * self._layout.numel
        self.anchors: list[Tensor] = []
        self.rebase()
        self.names = {full for name in layers for full in _buffer_names(name)}

    def rebase(self, anchors: Sequence[Tensor] | None = None) -> None:
        """Set the last committed means: to `anchors`, or to what the layers have now."""
        means = self._means()
        self.anchors = [a.to(own, copy=True) for own, a in zip(means, anchors or means, strict=True)]

    def pack(self, flat: Tensor, weight: float) -> None:
        if not self._layers:
            return
        offsets = torch._foreach_sub(self._means(), self.anchors)
        squares = torch._foreach_addcmul(self._variances(), offsets, offsets)
        torch._foreach_mul_([*offsets, *squares], weight)
        torch._foreach_copy_(self._views(flat), [*offsets, *squares])

    def install(self, flat: Tensor, total: float) -> None:
        if not self._layers:
            return
        sums = [view.to(own.device) for view, own in zip(self._views(flat), 2 * self.anchors, strict=True)]
        both = torch._foreach_div(sums, total)
        offsets, squares = both[: len(self._layers)], both[len(self._layers) :]
        variances = torch._foreach_addcmul(squares, offsets, offsets, value=-1.0)
        torch._foreach_clamp_min_(variances, 0.0)
        torch._foreach_add_(self.anchors, offsets)
        torch._foreach_copy_([layer.running_mean for layer in self._layers], self.anchors)
        torch._foreach_copy_([layer.running_var for layer in self._layers], list(variances))
        self.rebase()  # as the layers store them, which may be in half precision

    def _means(self) -> list[Tensor]:
        return [layer.running_mean.to(self._dtype) for layer in self._layers]

    def _variances(self) -> list[Tensor]:
        return [layer.running_var.to(self._dtype) for layer in self._layers]

    def _views(self, flat: Tensor) -> list[Tensor]:
        half = self._layout.numel
        return [*self._layout.views(flat[:half]), *self._layout.views(flat[half:])]


def statistics_layers(model: nn.Module, without: set[str]) -> dict[str, nn.Module]:
    """The layers whose running statistics are pooled, by name: torch's batch and instance normalisation.

    Layers one of whose statistics is in `without` are left out.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None and not without & _buffer_names(name)
    }


def _buffer_names(layer: str) -> set[str]:
    prefix = f"{layer}." if layer else ""
    return {f"{prefix}running_mean", f"{prefix}running_var"}
