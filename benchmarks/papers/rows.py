"""Local SGD with all workers in one process, as rows of one tensor: learns as the simulator's fleet does, some ten
times as fast, where nobody joins, dies or is late. Only how it learns is here: schedules are the package's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Rows:
    """`workers` copies of a model of layers (B, n) → (B, k), trained by plain SGD with rate `lr`.

    Each step every worker draws `batch` of the samples `inputs` (N, n) and `classes` (N,).
    """

    def __init__(
        self, model: nn.Module, data: tuple[Tensor, Tensor], workers: int, batch: int, lr: float, seed: int
    ) -> None:
        self._model, (self._inputs, self._classes) = model, data
        self._workers, self._batch, self._lr = workers, batch, lr
        self._draw = torch.Generator().manual_seed(seed)
        repeated = (
            (name, value.detach().expand(workers, *value.shape)) for name, value in model.named_parameters()
        )
        self._rows = {name: rows.clone() for name, rows in repeated}  # name: (workers, *shape)
        self._gradients = torch.func.vmap(torch.func.grad_and_value(self._loss))

    def _loss(self, parameters: dict[str, Tensor], inputs: Tensor, classes: Tensor) -> Tensor:
        logits = torch.func.functional_call(self._model, parameters, (inputs,))
        return functional.cross_entropy(logits, classes)

    def step(self) -> float:
        """One local step on every worker; returns the mean loss of all batches."""
        drawn = torch.randint(len(self._inputs), (self._workers, self._batch), generator=self._draw)
        gradients, losses = self._gradients(self._rows, self._inputs[drawn], self._classes[drawn])
        for name, rows in self._rows.items():
            rows.sub_(gradients[name], alpha=self._lr)
        return float(losses.mean())

    def average(self) -> None:
        for rows in self._rows.values():
            rows.copy_(rows.mean(0, keepdim=True).expand_as(rows))

    def loss(self, inputs: Tensor, classes: Tensor) -> float:
        """The first worker's model's: after an averaging, everybody's."""
        first = {name: rows[0] for name, rows in self._rows.items()}
        return float(self._loss(first, inputs, classes))
