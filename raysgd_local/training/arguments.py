"""Check the arguments of the context's methods, and the return values of a task's: users' code may give anything."""

from __future__ import annotations

import numbers
import operator
from typing import Any

import torch
from torch import nn

from raysgd_local.errors import InputError


def model(value: Any) -> None:
    """Raise `InputError` unless this is a module."""
    if not isinstance(value, nn.Module):
        raise _refused("model", value, "a torch.nn.Module, as make_model() returns")


def optimizer(value: Any) -> None:
    """Raise `InputError` unless this is an optimizer."""
    if not isinstance(value, torch.optim.Optimizer):
        raise _refused("optimizer", value, "a torch.optim.Optimizer, as make_optimizer() returns")


def scaler(value: Any) -> None:
    """Raise `InputError` unless this is a loss scale."""
    if not isinstance(value, torch.amp.GradScaler):
        raise _refused("scaler", value, "a torch.amp.GradScaler")


def registered(name: Any, value: Any) -> None:
    """Raise `InputError` unless this is a name, and an object whose state can be saved."""
    if not isinstance(name, str):
        raise _refused("name", name, "text")
    if not all(callable(getattr(value, method, None)) for method in ("state_dict", "load_state_dict")):
        raise _refused(name, value, "an object with state_dict and load_state_dict")


def whole_number(name: str, value: Any, at_least: int) -> int:
    """Return the value as an integer. Raises `InputError` for anything else, and for one below `at_least`."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise _refused(name, value, f"an integer of at least {at_least}") from error
    if number < at_least:
        raise InputError(name, number, f"an integer of at least {at_least}")
    return number


def loss(value: Any) -> None:
    """Raise `InputError` unless this is a number, or a real tensor with one element."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.is_complex():
            given = f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
            raise InputError("loss", given, "a real scalar: the mean loss of a step's samples")
    elif not isinstance(value, numbers.Real):
        raise _refused("loss", value, "a real scalar: the mean loss of a step's samples")


def gradient_loss(value: Any) -> None:
    """Raise `InputError` unless this is a scalar tensor that has a gradient."""
    if not isinstance(value, torch.Tensor):
        raise _refused("loss", value, "a scalar tensor with a gradient, as loss() returns")
    loss(value)
    if not value.requires_grad:
        allowed = (
            "a scalar tensor with a gradient: computed from the model's outputs, without detach() or no_grad()"
        )
        raise InputError("loss", "a tensor without a gradient", allowed)


def two_sets(value: Any) -> tuple[Any, Any]:
    """Return the training and test set. Raises `InputError` for anything else."""
    try:
        train, test = value
    except (TypeError, ValueError) as error:
        raise _refused(
            "datasets", value, "a pair: the training and the test set, as datasets() returns"
        ) from error
    return train, test


def evaluated(metrics: Any) -> None:
    """Raise `InputError` unless this can be called."""
    if not callable(metrics):
        raise _refused("metrics", metrics, "a function of a model and a batch")


def _refused(name: str, value: Any, allowed: str) -> InputError:
    kind = value.__name__ if isinstance(value, type) else type(value).__name__
    plain = isinstance(value, (str, int, float, list, tuple, dict, type(None)))
    hint = f"did you mean {kind}()?" if isinstance(value, type) else ""
    return InputError(name, value if plain else f"an object of class {kind}", allowed, hint)
