"""The settings of a task's local optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from raysgd_local.algorithms import validation
from raysgd_local.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """A `torch.optim` optimizer by name, with its usual settings.

    `lr` has no default because a good value depends on the optimizer. Raises `InputError` for a value out of range,
    and for a setting that the named optimizer doesn't have.
    """

    name: Literal["sgd", "adam", "adamw"] = field(default="sgd", metadata={"alternative": True})
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        validation.one_of("name", self.name, ("sgd", "adam", "adamw"))
        validation.number("lr", self.lr, above=0)
        if not 0 <= self.momentum < 1:
            raise InputError("momentum", self.momentum, "a number of at least 0 and below 1")
        validation.number("weight_decay", self.weight_decay)
        if self.weight_decay < 0:
            raise InputError("weight_decay", self.weight_decay, "a number of at least 0")
        if self.name != "sgd" and self.momentum:
            raise InputError("momentum", self.momentum, f"0 with {self.name}", "only sgd has momentum")
        if self.nesterov and not self.momentum:
            raise InputError("nesterov", self.nesterov, "false while momentum is 0")

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the `torch.optim` optimizer, in its fused form (the fastest, also on CPU)."""
        import torch

        if self.name == "sgd":
            momentum, nesterov = self.momentum, self.nesterov
            return torch.optim.SGD(
                parameters, self.lr, momentum, weight_decay=self.weight_decay, nesterov=nesterov, fused=True
            )
        adam = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        return adam(parameters, self.lr, weight_decay=self.weight_decay, fused=True)
