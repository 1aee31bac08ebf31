"""A task whose steps wait, as for an accelerator, so that a few cores can stand for many machines."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raysgd_local.tasks import FashionMNIST


@dataclass(frozen=True, kw_only=True)
class OnAccelerator(FashionMNIST):
    """LeNet; each step waits for `least_s` and an exponential time of mean `tail_s` beside what it computes."""

    least_s: float = 0.01
    tail_s: float = 0.005

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """The waiting is drawn from the worker's own stream of random numbers."""
        if model.training:
            time.sleep(self.least_s + self.tail_s * float(torch.empty(()).exponential_()))
        return super().loss(model, batch)
