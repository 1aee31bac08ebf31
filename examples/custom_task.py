"""A task of one's own: a regression, with its own setting, metric and parameter groups.

python examples/custom_task.py                  # on this machine, 2 workers
cd examples && raysgd-local train --set task.name=custom_task:Diabetes --set task.hidden=64

docs/extending.md explains what a task is made of.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from ray.train import RunConfig, ScalingConfig
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset, random_split

from raysgd_local import Algorithm, FixedPeriod, InputError, LocalSGDTrainer
from raysgd_local.tasks import Optimizer, Task


@dataclass(frozen=True, kw_only=True)
class Diabetes(Task):
    """scikit-learn's diabetes data: 442 patients, 10 measurements each, one number to predict."""

    hidden: int = 32
    epochs: int = 60
    batch_size: int = 16
    optimizer: Optimizer = Optimizer(name="adamw", lr=3e-3, weight_decay=0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden < 1:
            raise InputError("hidden", self.hidden, "an integer of at least 1")

    def make_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(10, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1), nn.Flatten(0))

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Weight decay for matrices, none for biases."""
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in parameters:
            groups[parameter.dim() > 1].append(parameter)
        plain = [{"params": groups[True]}, {"params": groups[False], "weight_decay": 0.0}]
        return torch.optim.AdamW(plain, lr=self.optimizer.lr, weight_decay=self.optimizer.weight_decay)

    def datasets(self) -> Any:
        inputs, targets = load_diabetes(return_X_y=True, scaled=False)  # (442, 10), (442,)
        inputs, targets = ((array - array.mean(axis=0)) / array.std(axis=0) for array in (inputs, targets))
        data = TensorDataset(*(torch.as_tensor(array, dtype=torch.float32) for array in (inputs, targets)))
        return random_split(data, (354, 88), torch.Generator().manual_seed(0))

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return F.mse_loss(model(inputs), targets)

    def metrics(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The squared error in variances of the target (a constant guess has about 1), a value a patient."""
        inputs, targets = batch
        return {"squared_error": (model(inputs) - targets) ** 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--storage", default="runs")
    options = parser.parse_args()
    result = LocalSGDTrainer(
        Diabetes(),
        algorithm=Algorithm(schedule=FixedPeriod(tau=4), optimizer_state="average"),
        scaling_config=ScalingConfig(num_workers=options.workers),
        run_config=RunConfig(storage_path=options.storage),
    ).fit()
    print(result.metrics["eval"])
    print(result.path)


if __name__ == "__main__":
    main()
