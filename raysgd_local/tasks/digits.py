"""The handwritten digits that scikit-learn includes: a real data set without a download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from raysgd_local.algorithms import validation
from raysgd_local.tasks.classification import Classification
from raysgd_local.tasks.optimizer import Optimizer

if TYPE_CHECKING:
    from torch import nn

    from raysgd_local.tasks.memory import InMemory

TEST_SAMPLES = 360


@dataclass(frozen=True, kw_only=True)
class Digits(Classification):
    """`sklearn.datasets.load_digits`: 1,797 grey images of 8×8 pixels, 10 classes; 1,437 train, 360 test.

    The split is fixed and stratified; pixels are standardised with the training set's means and deviations.
    """

    model: Literal["mlp", "cnn"] = "mlp"
    epochs: int = 30
    batch_size: int = 16
    optimizer: Optimizer = Optimizer(lr=0.02, momentum=0.9, weight_decay=1e-4)

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.one_of("model", self.model, ("mlp", "cnn"))

    def make_model(self) -> nn.Module:
        from raysgd_local.tasks import models

        return models.mlp(64, 64, 10) if self.model == "mlp" else models.small_cnn(10)

    def datasets(self) -> tuple[InMemory, InMemory]:
        """Return images, (N, 1, 8, 8) float32, and classes, (N,) int64, for training and test."""
        import torch
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        from raysgd_local.tasks.memory import InMemory

        pixels, classes = load_digits(return_X_y=True)  # (1797, 64), (1797,)
        train_x, test_x, train_y, test_y = train_test_split(
            pixels, classes, test_size=TEST_SAMPLES, stratify=classes, random_state=0
        )
        mean, deviation = train_x.mean(axis=0), train_x.std(axis=0)
        deviation[deviation == 0] = 1.0  # pixels that are blank in every image

        def in_memory(x: object, y: object) -> InMemory:
            images = torch.as_tensor((x - mean) / deviation, dtype=torch.float32)
            return InMemory(images.view(-1, 1, 8, 8), torch.as_tensor(y, dtype=torch.int64))

        return in_memory(train_x, train_y), in_memory(test_x, test_y)
