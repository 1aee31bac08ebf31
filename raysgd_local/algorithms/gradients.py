"""Gradients in the place of parameters: for methods that average before the optimizer's step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raysgd_local.flat import FlatLayout, pack, unpack


class Gradients:
    """The gradients of some parameters. One that a member lacks counts as zero; one that all lack stays None.

    Behind the gradients travels, for each parameter, how many members had one.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], layout: FlatLayout) -> None:
        self._parameters, self._layout = list(parameters), layout
        self.presence_numel = len(self._parameters)

    def pack(self, flat: Tensor, presence: Tensor, weight: float) -> None:
        pieces = self._layout.views(flat)
        here = [p.grad is not None for p in self._parameters]
        pack([piece for piece, has in zip(pieces, here, strict=True) if has], self._own(), weight)
        for piece, has in zip(pieces, here, strict=True):
            if not has:
                piece.zero_()
        presence.copy_(torch.tensor(here, dtype=presence.dtype))

    def install(self, flat: Tensor, presence: Tensor, total: float) -> None:
        somewhere = [count > 0 for count in presence.tolist()]
        for parameter, wanted in zip(self._parameters, somewhere, strict=True):
            if not wanted:
                parameter.grad = None
            elif parameter.grad is None or parameter.grad.is_sparse:
                parameter.grad = torch.empty_like(parameter)
        pieces = [piece for piece, wanted in zip(self._layout.views(flat), somewhere, strict=True) if wanted]
        unpack(pieces, self._own(), total)

    def _own(self) -> list[Tensor]:
        found = [p.grad for p in self._parameters if p.grad is not None]
        dense = [gradient.to_dense() if gradient.is_sparse else gradient for gradient in found]
        return [torch.view_as_real(gradient) if gradient.is_complex() else gradient for gradient in dense]
