"""Schedulers of learning rates as users make them: torch's, and Hugging Face's, which are `LambdaLR`s."""

from __future__ import annotations

import math

from torch.optim import lr_scheduler as schedulers

EPOCHS, STEPS = 4, 6
"""Epochs, and optimizer steps in each, of the runs for which the schedules are made."""


def warm_up_then_cosine(step: int) -> float:
    """Return the factor of `transformers.get_cosine_schedule_with_warmup`, with 5 warm-up steps."""
    if step < 5:
        return step / 5
    return 0.5 * (1 + math.cos(math.pi * (step - 5) / (EPOCHS * STEPS - 5)))


PER_STEP = {
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, max_lr=0.5, total_steps=60, cycle_momentum=False),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.01, 0.2, step_size_up=4, cycle_momentum=False),
    "cosine with warm-up": lambda o: schedulers.LambdaLR(o, warm_up_then_cosine),
    "linear with warm-up": lambda o: schedulers.LambdaLR(o, lambda n: min(1.0, n / 4)),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 5),
    "LinearLR": lambda o: schedulers.LinearLR(o, 0.1, 1.0, 8),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, EPOCHS * STEPS, 2.0),
}
PER_EPOCH = {
    "StepLR": lambda o: schedulers.StepLR(o, 1, 0.1),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [1, 3], 0.5),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.7),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, EPOCHS),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.ConstantLR(o, 0.5, 1), schedulers.ExponentialLR(o, 0.5)], [1]
    ),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=0, factor=0.3),
}
