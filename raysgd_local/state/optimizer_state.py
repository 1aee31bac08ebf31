"""Average the optimizers' own state (momentum, moments) together with the parameters."""

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
    """An optimizer class whose state can be averaged.

    Its tensors are exponential means, which begin at zero and have a mass of 1 − β^t after t steps: the share of
    their value that is no longer the zero. Adam's bias correction divides by it.
    """

    names: Callable[[dict[str, Any]], list[str]]  # parameter group → names of a parameter's state tensors
    masses: Callable[[dict[str, Any], int], list[float]]  # parameter group, steps → mass of each of these
    counts_steps: bool  # whether it stores `step`


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
    """One parameter, and its state in its optimizer."""

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
        """Steps taken. For an optimizer that doesn't count them: 1 once it has state."""
        if self.kind.counts_steps:
            return int(self.state.get("step", 0))
        return int(any(self.state.get(name) is not None for name in self.names))

    def masses(self, age: int) -> list[float]:
        return self.kind.masses(self.group, age)

    def tensors(self) -> list[Tensor]:
        """Return the state's tensors; zeros if this member has no state yet, which add nothing to the sums."""
        found = [self.state.get(name) for name in self.names]
        return [_real(torch.zeros_like(self.parameter) if t is None else t) for t in found]

    def create(self) -> None:
        """Create the state that the optimizer itself would create at its first step."""
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
    """Averages momentum (SGD) and moments (Adam, AdamW), with the members' weights p.

    SGD: the mean of the momentum buffers; a missing one counts as zero. Adam, AdamW: the bias-corrected mean
    m̂ = Σp m / Σp(1 − β₁^t), stored as m̂(1 − β₁^t̄) with t̄ = max t, so that a member's influence grows with its
    steps t; v (not √v) likewise. In the flat vector the masses Σp(1 − β^t) follow the tensors.

    Raises `InputError` for an optimizer of another class.
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
        """Install the weighted sum. Call `install_steps` first: the stored moments depend on the largest step count."""
        sums = iter(self._layout.views(flat[: self._layout.numel]))
        masses = iter(flat[self._layout.numel :].tolist())
        for slot in self._slots:
            for index, name in enumerate(slot.names):
                _install(slot, index, name, next(sums), next(masses), total)

    def steps(self) -> list[int]:
        """Return the step counts of all parameters whose optimizer counts steps."""
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
            f"with optimizer_state 'average', one of {names}",
            "'keep' and 'reset' work with any optimizer",
        )
    trained = [(group, p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    return [_Slot(optimizer, group, p, kind) for group, p in trained]


def _install(slot: _Slot, index: int, name: str, piece: Tensor, mass: float, total: float) -> None:
    if mass <= 0:  # no member has state for it
        return
    slot.create()
    # Momentum is divided by all weights, since a member without a buffer counts as zero.
    scale = slot.masses(slot.age)[index] / mass if slot.kind.counts_steps else 1.0 / total
    _real(slot.state[name]).copy_(piece * scale)
