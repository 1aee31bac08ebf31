"""A problem that an oracle can follow by hand: the mean of quadratics with one curvature."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

RATE, CURVATURE = 0.2, torch.tensor([0.3, 0.6, 1.0, 0.1, 0.8, 0.5], dtype=torch.float64)


class Quadratics(Dataset):
    """Sample i asks that x be c_i."""

    def __init__(self, samples: int) -> None:
        generator = torch.Generator().manual_seed(5)
        self.targets = torch.randn(samples, 6, generator=generator, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> int:
        return index
