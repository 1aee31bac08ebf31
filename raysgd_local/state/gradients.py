"""Average gradients in the place of parameters: for methods that average before the optimizer's step."""

from __future__ import annotations

from collections.abc import Container, Sequence

import torch
from torch import Tensor, nn

from raysgd_local.state.flat_vector import FlatLayout, unpack


class Gradients:
    """The gradients of the parameters. One that a member lacks counts as zero; one that all lack stays None.

    For this a second section of the vector counts, for each parameter, the members that have a gradient.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], layout: FlatLayout, only: Container[int] | None
    ) -> None:
        """`only`: ids of the parameters that step now; None if all do. Other gradients are left as they are."""
        self._parameters, self._layout = list(parameters), layout
        self._steps = [only is None or id(p) in only for p in self._parameters]
        self.numel = len(self._parameters)  # of the section with the counts

    def own(self) -> list[Tensor | None]:
        """Return each parameter's gradient, dense and viewed as real; None where this member has none to step with."""
        pairs = zip(self._parameters, self._steps, strict=True)
        return [None if p.grad is None or not steps else _dense(p.grad) for p, steps in pairs]

    def pack(self, flat: Tensor, weight: float) -> None:  # noqa: ARG002
        """Write 1 for each parameter with a gradient here, else 0. These are counted, so `weight` is not used."""
        flat.copy_(torch.tensor([gradient is not None for gradient in self.own()], dtype=flat.dtype))

    def install(self, flat: Tensor, presence: Tensor, total: float) -> None:
        somewhere = [steps and count > 0 for steps, count in zip(self._steps, presence.tolist(), strict=True)]
        for parameter, steps, wanted in zip(self._parameters, self._steps, somewhere, strict=True):
            if steps and not wanted:
                parameter.grad = None
            elif wanted and (parameter.grad is None or parameter.grad.is_sparse):
                parameter.grad = torch.empty_like(parameter)
        pieces = [piece for piece, wanted in zip(self._layout.views(flat), somewhere, strict=True) if wanted]
        unpack(pieces, [gradient for gradient in self.own() if gradient is not None], total)


def _dense(gradient: Tensor) -> Tensor:
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    return torch.view_as_real(dense) if dense.is_complex() else dense
