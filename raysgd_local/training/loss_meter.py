"""Sum the open round's training loss on the device that computes it."""

from __future__ import annotations

import torch


class LossMeter:
    """The sum of the open round's loss. It stays on the device: fetching it at each step would stall an accelerator.

    While an exchange is in flight, its part of the sum is kept apart until it is committed or lost.
    """

    def __init__(self) -> None:
        self._sum: torch.Tensor | float = 0.0
        self._travelling: torch.Tensor | float | None = None

    def add(self, loss: torch.Tensor | float, samples: int) -> None:
        """Add the mean loss (a scalar) over `samples` samples."""
        if not isinstance(loss, torch.Tensor):
            self._sum = self._sum + loss * samples
        elif loss.is_cpu:  # nothing to wait for
            self._sum = self._sum + loss.item() * samples
        else:
            self._sum = self._sum + loss.detach().double() * samples

    def value(self) -> float:
        """Return the loss summed over samples; waits for the device."""
        return float(self._sum)

    def launch(self) -> None:
        """Set the sum apart with the exchange launched now, and begin the next round's."""
        self._travelling, self._sum = self._sum, 0.0

    def land(self) -> None:
        """Add the part set apart again, because its exchange was lost."""
        if self._travelling is not None:
            self._sum, self._travelling = self._sum + self._travelling, None

    def committed(self) -> None:
        """Drop the committed round's sum."""
        if self._travelling is None:
            self._sum = 0.0
        self._travelling = None

    def reset(self) -> None:
        """Drop everything."""
        self._sum, self._travelling = 0.0, None
