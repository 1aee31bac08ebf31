"""Tell a checkpoint of another model, other optimizers or another method from the user's code failing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from raysgd_local.errors import InputError, UsageError
from raysgd_local.training.replica.replica import Prepared, Replica

_MOST = 4  # differences that a message names


@contextmanager
def refusing(checkpoint: str, replica: Replica, model: Any = None) -> Iterator[None]:
    """Turn errors of loading into an `InputError`, which names the differences from `model`, the checkpoint's."""
    try:
        yield
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, UsageError) as error:
        found = _model_differences(replica.models, model) if isinstance(model, dict) else []
        raise _refusal(checkpoint, found or [" ".join(str(error).split())]) from error


def check_optimizers(checkpoint: str, replica: Replica, local: Mapping[str, Any]) -> None:
    """Raise `InputError` if a `local_state` is of other optimizers. Torch would load much of it."""
    theirs = local["optimizers"]
    kinds = local.get("optimizer_kinds") or [""] * len(theirs)
    if len(theirs) != len(replica.optimizers):
        found = [f"the checkpoint has {len(theirs)} optimizers, and this run {len(replica.optimizers)}"]
    else:
        pairs = enumerate(zip(replica.optimizers, theirs, kinds, strict=True))
        found = [told for i, known in pairs if (told := _optimizer_difference(f"optimizer {i}", *known))]
    if found:
        raise _refusal(checkpoint, found)


def _refusal(checkpoint: str, differences: Sequence[str]) -> InputError:
    rest = len(differences) - _MOST
    hint = "; ".join(differences[:_MOST]) + (f"; and {rest} more" if rest > 0 else "")
    return InputError("resume", checkpoint, "a checkpoint of the same model, optimizers and method", hint)


def _model_differences(models: Sequence[nn.Module], state: Mapping[str, Any]) -> list[str]:
    if len(models) == 1:
        return _tensor_differences("the model", models[0], state)
    numbers = [str(i) for i in range(len(models))]
    if sorted(state) != sorted(numbers):
        return [f"the checkpoint does not have {len(models)} models"]
    pairs = zip(numbers, models, strict=True)
    return [
        told for number, model in pairs for told in _tensor_differences(f"model {number}", model, state[number])
    ]


def _tensor_differences(what: str, model: nn.Module, theirs: Mapping[str, Any]) -> list[str]:
    ours = model.state_dict()
    found = [f"{what} has {name} in the checkpoint, and not in this run" for name in theirs if name not in ours]
    found += [f"{what} has {name} in this run, and not in the checkpoint" for name in ours if name not in theirs]
    shapes = [(name, _shape(ours[name]), _shape(theirs[name])) for name in ours if name in theirs]
    return found + [
        f"{name} has the shape {there} in the checkpoint, and {here} in this run"
        for name, here, there in shapes
        if here != there
    ]


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _optimizer_difference(what: str, ours: Prepared, state: Mapping[str, Any], kind: str) -> str:
    """Return the difference between an optimizer and a `state_dict`, which does not name its class."""
    own = type(ours.optimizer).__name__
    if kind and kind != own:
        return f"{what} is {kind} in the checkpoint, and {own} in this run"
    groups = ours.optimizer.param_groups, state["param_groups"]
    here, there = ([len(group["params"]) for group in some] for some in groups)
    if here != there:
        return f"{what} has groups of {there} parameters in the checkpoint, and of {here} in this run"
    here_options, there_options = map(_options, groups)
    lacks, adds = here_options - there_options, there_options - here_options
    if not kind and lacks and adds:  # another version of torch may have options more, or less
        return (
            f"{what} has {', '.join(sorted(adds))} in the checkpoint, and {', '.join(sorted(lacks))} in this run"
        )
    return ""


def _options(groups: Sequence[Mapping[str, Any]]) -> set[str]:
    return {name for group in groups for name in group} - {"params", "lr", "initial_lr"}
