"""Training on samples drawn at random, and judging by the training loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raysgd_local.tasks.memory import InMemory
from raysgd_local.training.data.samples import Samples


class Drawn(InMemory):
    """An epoch of `epoch` samples, each drawn at random from all."""

    def __init__(self, *tensors: Tensor, epoch: int) -> None:
        super().__init__(*tensors)
        self._epoch = epoch

    def __len__(self) -> int:
        return self._epoch

    def __getitems__(self, indices: Sequence[int]) -> Samples:
        return super().__getitems__(torch.randint(len(self.tensors[0]), (len(indices),)).tolist())


def drawn(tensors: Sequence[Tensor], epoch: int, judged: int) -> tuple[Drawn, InMemory]:
    """Return a task's two data sets: epochs of `epoch` samples drawn at random, and the first `judged` for evaluation.

    Both come from the training set: evaluations measure the training loss.
    """
    return Drawn(*tensors, epoch=epoch), InMemory(*(tensor[:judged] for tensor in tensors))
