"""What happens to an optimizer's own state when replicas are averaged: kept, reset, or averaged too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raysgd_local.errors import InputError
from raysgd_local.state.flat_vector import FlatLayout, pack


@dataclass(frozen=True)
class _Kind:
    """An optimizer class that can be averaged: its tensors, and by age how much of each one's mass is reached.

    An exponential mean begins at zero and has reached 1 − β^t of its true value after t steps.
    """

    names: Callable[[dict[str, Any]], list[str]]
    masses: Callable[[dict[str, Any], int], list[float]]
    counts_steps: bool


def _adam_names(group: dict[str, Any]) -> list[str]:
    return ["exp_avg", "exp_avg_sq"] + (["max_exp_avg_sq"] if group["amsgrad"] else [])


def _adam_masses(group: dict[str, Any], step: int) -> list[float]:
    first, second = (1.0 - float(beta) ** step for beta in group["betas"])
    return [first, second] + ([second] if group["amsgrad"] else [])


def _sgd_names(group: dict[str, Any]) -> list[str]:
    return ["momentum_buffer"] if group["momentum"] else []


def _sgd_masses(group: dict[str, Any], step: int) -> list[float]:
    return [float(step > 0)] if group["momentum"] else []


_ADAM = _Kind(_adam_names, _adam_masses, counts_steps=True)
_KINDS: dict[type[torch.optim.Optimizer], _Kind] = {
    torch.optim.SGD: _Kind(_sgd_names, _sgd_masses, counts_steps=False),
    torch.optim.Adam: _ADAM,
    torch.optim.AdamW: _ADAM,
}


@dataclass(frozen=True)
class _Slot:
    """One parameter in its optimizer."""

    optimizer: torch.optim.Optimizer
    group: dict[str, Any]
    parameter: Tensor
    kind: _Kind

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.optimizer.state.get(self.parameter, {})
        return state

    @property
    def names(self) -> list[str]:
        return self.kind.names(self.group)

    @property
    def age(self) -> int:
        """Steps taken; for an optimizer that counts none, 1 once it has state."""
        if self.kind.counts_steps:
            return int(self.state.get("step", 0))
        return int(any(self.state.get(name) is not None for name in self.names))

    def masses(self, age: int) -> list[float]:
        return self.kind.masses(self.group, age)

    def tensors(self) -> list[Tensor]:
        """Zeros where this member has no state yet: it then adds nothing to the sums."""
        found = [self.state.get(name) for name in self.names]
        return [_real(torch.zeros_like(self.parameter) if t is None else t) for t in found]

    def create(self) -> None:
        """Make the state that the optimizer itself would make at its first step."""
        state = self.optimizer.state[self.parameter]
        if self.kind.counts_steps and "step" not in state:
            on_device = self.group["capturable"] or self.group["fused"]
            state["step"] = torch.zeros((), device=self.parameter.device if on_device else None)
        for name in self.names:
            if state.get(name) is None:
                state[name] = torch.zeros_like(self.parameter)


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


class AveragedOptimizers:
    """Momentum, and Adam's moments, averaged with the parameters.

    SGD: the mean of the momentum buffers (a missing one counts as zero). Adam, AdamW: m̂ = Σp m / Σp(1 − β₁^t),
    stored as m̂(1 − β₁^t̄) with t̄ = max t; v (never √v) likewise, so that members of different age weigh what
    they know. The masses Σp(1 − β^t) travel behind the tensors.

    Raises `InputError` that names an optimizer of another class.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], dtype: torch.dtype) -> None:
        self._slots = [slot for number, optimizer in enumerate(optimizers) for slot in _slots(number, optimizer)]
        self._layout = FlatLayout.like([tensor for slot in self._slots for tensor in slot.tensors()])
        self._dtype = dtype
        self.numel = self._layout.numel + len(self._layout.shapes)

    def pack(self, flat: Tensor, weight: float) -> None:
        pieces = self._layout.views(flat[: self._layout.numel])
        pack(pieces, [tensor for slot in self._slots for tensor in slot.tensors()], weight)
        masses = [weight * mass for slot in self._slots for mass in slot.masses(slot.age)]
        flat[self._layout.numel :] = torch.tensor(masses, dtype=self._dtype)

    def install(self, flat: Tensor, total: float) -> None:
        """After `install_steps`: what is stored depends on the largest step count."""
        sums = iter(self._layout.views(flat[: self._layout.numel]))
        masses = iter(flat[self._layout.numel :].tolist())
        for slot in self._slots:
            for index, name in enumerate(slot.names):
                _install(slot, index, name, next(sums), next(masses), total)

    def steps(self) -> list[int]:
        """The step counts of those that count."""
        return [slot.age for slot in self._slots if slot.kind.counts_steps]

    def install_steps(self, maxima: Sequence[int]) -> None:
        counting = [slot for slot in self._slots if slot.kind.counts_steps]
        for slot, step in zip(counting, maxima, strict=True):
            if step:
                slot.create()
                slot.state["step"].fill_(step)


def _slots(number: int, optimizer: torch.optim.Optimizer) -> list[_Slot]:
    kind = _KINDS.get(type(optimizer))
    if kind is None:
        names = ", ".join(sorted(known.__name__ for known in _KINDS))
        raise InputError(
            f"optimizers[{number}]",
            type(optimizer).__name__,
            f"with optimizer_state 'average' one of {names}",
            "'keep' and 'reset' work with any optimizer",
        )
    return [_Slot(optimizer, group, p, kind) for group in optimizer.param_groups for p in group["params"]]


def _install(slot: _Slot, index: int, name: str, piece: Tensor, mass: float, total: float) -> None:
    if mass <= 0:  # no member has any
        return
    slot.create()
    # A sum without ages is divided by all weights, as one who has nothing yet counts as zero.
    scale = slot.masses(slot.age)[index] / mass if slot.kind.counts_steps else 1.0 / total
    _real(slot.state[name]).copy_(piece * scale)
