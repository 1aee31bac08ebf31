"""The open round's loss, summed where it is computed."""

from __future__ import annotations

import torch


class LossMeter:
    """The open round's loss, summed on the device: fetching it every step would stall an accelerator.

    Where an averaging travels, what it took with it is kept apart until it is committed, or lost.
    """

    def __init__(self) -> None:
        self._sum: torch.Tensor | float = 0.0
        self._travelling: torch.Tensor | float | None = None

    def add(self, loss: torch.Tensor | float, samples: int) -> None:
        if not isinstance(loss, torch.Tensor):
            self._sum = self._sum + loss * samples
        elif loss.is_cpu:  # nothing to wait for
            self._sum = self._sum + loss.item() * samples
        else:
            self._sum = self._sum + loss.detach().double() * samples

    def value(self) -> float:
        return float(self._sum)

    def launch(self) -> None:
        """The sum so far travels; what comes now is the next round's."""
        self._travelling, self._sum = self._sum, 0.0

    def land(self) -> None:
        """What travelled did not arrive."""
        if self._travelling is not None:
            self._sum, self._travelling = self._sum + self._travelling, None

    def committed(self) -> None:
        """The round is."""
        if self._travelling is None:
            self._sum = 0.0
        self._travelling = None

    def reset(self) -> None:
        """Nothing counts of what there was."""
        self._sum, self._travelling = 0.0, None
