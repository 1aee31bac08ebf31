"""Pool BatchNorm's running statistics over replicas, as if one replica had seen all batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class PooledStatistics:
    """The running means and variances of all normalisation layers that track them, as vectors over all channels.

    The pooled variance includes the spread of the means: σ̄² = Σp(σ² + d²) − (Σp d)², with d = μ − a and weights p
    that sum to 1. The anchors a are the last committed means, equal on all members: subtracting them avoids the
    cancellation of large means.
    """

    def __init__(self, layers: dict[str, nn.Module], dtype: torch.dtype, device: torch.device) -> None:
        self._layers: list[Any] = list(layers.values())
        self._sizes = [layer.running_mean.numel() for layer in self._layers]
        self._channels = sum(self._sizes)
        self._dtype, self._device = dtype, device
        self.numel = 2 * self._channels
        self.names = {full for name in layers for full in _buffer_names(name)}  # of the pooled buffers
        self.anchors = self._means()  # (channels,)

    def rebase(self, anchors: Tensor | None = None) -> None:
        """Set the last committed means to `anchors`, or to the layers' present means."""
        self.anchors = self._means() if anchors is None else anchors.to(self.anchors, copy=True)

    def pack(self, flat: Tensor, weight: float) -> None:
        offsets = self._means() - self.anchors
        flat[: self._channels] = weight * offsets
        flat[self._channels :] = weight * (self._variances() + offsets.square())

    def install(self, flat: Tensor, total: float) -> None:
        mean = flat.to(self._device) / total
        offsets, squares = mean[: self._channels], mean[self._channels :]
        variances = (squares - offsets.square()).clamp_min(0.0)
        self._store("running_mean", self.anchors + offsets)
        self._store("running_var", variances)
        self.rebase()  # read back from the layers, which may have rounded them to half precision

    def _means(self) -> Tensor:
        return self._join("running_mean")

    def _variances(self) -> Tensor:
        return self._join("running_var")

    def _join(self, name: str) -> Tensor:
        parts = [getattr(layer, name).to(self._device, self._dtype) for layer in self._layers]
        return torch.cat(parts) if parts else torch.empty(0, dtype=self._dtype, device=self._device)

    def _store(self, name: str, joined: Tensor) -> None:
        if self._layers:
            own = [getattr(layer, name) for layer in self._layers]
            torch._foreach_copy_(own, list(torch.split(joined, self._sizes)))


def statistics_layers(model: nn.Module, without: set[str]) -> dict[str, nn.Module]:
    """Return the layers whose running statistics are pooled, by name: torch's batch and instance normalisation.

    A layer with a buffer named in `without` is left out: the user gave a rule for it.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None and not without & _buffer_names(name)
    }


def _buffer_names(layer: str) -> set[str]:
    prefix = f"{layer}." if layer else ""
    return {f"{prefix}running_mean", f"{prefix}running_var"}
