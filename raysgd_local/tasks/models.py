"""The shipped tasks' models, in torch's own layers. Imports torch: tasks import this when a model is made."""

from __future__ import annotations

from torch import nn


def mlp(inputs: int, hidden: int, classes: int) -> nn.Module:
    """One hidden layer. Input (B, ...) with `inputs` values a sample, output (B, classes)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def small_cnn(classes: int) -> nn.Module:
    """Two convolutions for 8×8 grey images. Input (B, 1, 8, 8), output (B, classes)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 32),
        nn.ReLU(),
        nn.Linear(32, classes),
    )


def lenet(classes: int) -> nn.Module:
    """LeNet-5 with ReLU and max pooling (LeCun et al. 1998, section II.B), for 28×28 grey images.

    Input (B, 1, 28, 28), output (B, classes); 61,706 parameters at 10 classes.
    """
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )
