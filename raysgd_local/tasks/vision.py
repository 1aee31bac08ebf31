"""Tasks on image data sets that torchvision can read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from raysgd_local.algorithms import validation
from raysgd_local.errors import InputError
from raysgd_local.tasks.archives import missing, unpacked
from raysgd_local.tasks.classification import Classification
from raysgd_local.tasks.optimizer import Optimizer

if TYPE_CHECKING:
    from torch import nn

    from raysgd_local.tasks.memory import InMemory

MEAN, DEVIATION = 0.2860, 0.3530  # of the training set's pixels, scaled to [0, 1]
FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))


@dataclass(frozen=True, kw_only=True)
class FashionMNIST(Classification):
    """Zalando's 60,000 + 10,000 grey images of clothes, 28×28 pixels, 10 classes (Xiao et al. 2017).

    `data_dir` must have `FashionMNIST/raw` with the four official files, in torchvision's layout, packed (.gz) or not,
    at the same path on all machines. It defaults to the environment variable `RAYSGD_DATA`.
    """

    model: Literal["lenet", "mlp"] = "lenet"
    epochs: int = 6
    batch_size: int = 32
    optimizer: Optimizer = Optimizer(lr=0.03, momentum=0.9, weight_decay=1e-4)
    data_dir: str = field(default_factory=lambda: os.environ.get("RAYSGD_DATA", ""))

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.one_of("model", self.model, ("lenet", "mlp"))
        if self.data_dir:  # make it absolute: workers run in another directory
            object.__setattr__(self, "data_dir", os.path.abspath(os.path.expanduser(self.data_dir)))

    @property
    def raw(self) -> Path:
        return Path(self.data_dir) / "FashionMNIST" / "raw"

    def check(self) -> None:
        """Raise `InputError` unless `data_dir` has all four files."""
        allowed = "a directory with FashionMNIST/raw in it"
        if not self.data_dir:
            raise InputError("data_dir", self.data_dir, allowed, "set it, or the environment variable RAYSGD_DATA")
        if not self.raw.is_dir():
            raise InputError("data_dir", self.data_dir, allowed, f"{self.raw} does not exist")
        if absent := missing(self.raw, FILES):
            raise InputError("data_dir", self.data_dir, allowed, f"{self.raw} lacks {', '.join(absent)}")

    def make_model(self) -> nn.Module:
        from raysgd_local.tasks import models

        return models.lenet(10) if self.model == "lenet" else models.mlp(28 * 28, 200, 10)

    def datasets(self) -> tuple[InMemory, InMemory]:
        """Return images, (N, 1, 28, 28) float32, normalised, and classes, (N,) int64, for training and test."""
        self.check()
        root = unpacked(self.raw, FILES).parents[1]
        return self._part(root, train=True), self._part(root, train=False)

    def _part(self, root: Path, train: bool) -> InMemory:
        import torch
        from torchvision import datasets
        from torchvision.transforms import v2

        from raysgd_local.tasks.memory import InMemory

        to_float = v2.ToDtype(torch.float32, scale=True)
        normalise = v2.Compose([to_float, v2.Normalize([MEAN], [DEVIATION], inplace=True)])
        files = datasets.FashionMNIST(root, train=train)
        return InMemory(normalise(files.data.unsqueeze(1)), files.targets)
