"""Average a model's buffers other than BatchNorm's statistics: choose each one's rule, and apply it."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from raysgd_local.errors import InputError, nearest
from raysgd_local.state.flat_vector import FlatLayout, pack, unpack

BufferRule = Literal["mean", "max", "same", "keep"]

_FLOATING_RULES, _INTEGER_RULES = ("mean", "keep"), ("max", "same", "keep")
_FROZEN_RULES, _FIXED_RULES = ("same", "mean", "keep"), ("same", "keep")  # parameters; the latter of integers

# Elements. Larger integer buffers are tables (positions, masks) rather than counters: sending them each round costs
# too much, and if they differ between members that is a mistake.
_LARGEST_COUNTER = 16


@dataclass(frozen=True)
class Buffer:
    """A buffer of a model, looked up again at each use because user code may rebind it."""

    name: str  # full name, as in `model.named_buffers()`
    owner: nn.Module  # the module that registered it
    key: str  # its name in that module

    @property
    def tensor(self) -> Tensor:
        tensor = self.owner._buffers[self.key]
        assert tensor is not None
        return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def buffers_by_rule(
    model: nn.Module, rules: Mapping[str, str], others: set[str], frozen: set[str]
) -> dict[BufferRule, list[Buffer]]:
    """Group all buffers but `others` by their rules. `rules` maps names or patterns to rules, also of the parameters
    that are `frozen`.

    By default floating-point buffers are averaged, except that buffers which contain an infinite or NaN value from
    the beginning (masks) are kept, as are those of quantisation-aware training, which grow (`_observes`). Small integer
    and boolean ones take the maximum; large ones must be the same on all members.

    Raises `InputError` for a rule that the buffer can't have, and for a name or pattern that no buffer has.
    """
    found: dict[BufferRule, list[Buffer]] = {rule: [] for rule in get_args(BufferRule)}
    names = []
    for buffer in _all_buffers(model):
        names.append(buffer.name)
        if buffer.name not in others or _explicit(buffer.name, rules):
            found[_rule(buffer, rules)].append(buffer)
    for pattern in rules:
        if not fnmatch.filter([*names, *frozen], pattern):
            allowed = "names of the model's buffers or frozen parameters, or patterns"
            raise InputError("buffers", pattern, allowed, nearest(pattern, [*names, *frozen]))
    return found


def parameter_rules(frozen: Mapping[str, Tensor], rules: Mapping[str, str]) -> dict[str, str]:
    """Return each frozen parameter's rule. Patterns whose rule a parameter can't have are for buffers only.

    Raises `InputError` for a rule, given by name, that the parameter can't have.
    """
    found = {name: _explicit(name, rules) or "same" for name in frozen}
    for name, rule in found.items():
        allowed = _FROZEN_RULES if frozen[name].is_floating_point() or frozen[name].is_complex() else _FIXED_RULES
        if rule not in allowed and name in rules:
            raise InputError(f"buffers.{name}", rule, f"{', '.join(allowed)} for a frozen parameter")
        found[name] = rule if rule in allowed else "same"
    return found


def explicit_names(model: nn.Module, rules: Mapping[str, str]) -> set[str]:
    """Return the names of buffers for which the user gave a rule."""
    return {buffer.name for buffer in _all_buffers(model) if _explicit(buffer.name, rules)}


def _all_buffers(model: nn.Module) -> list[Buffer]:
    """List each buffer once, even if several modules share it."""
    owners = dict(model.named_modules())
    places = [(name, *name.rpartition(".")[::2]) for name, _ in model.named_buffers()]
    return [Buffer(name, owners[path], key) for name, path, key in places]


def _explicit(name: str, rules: Mapping[str, str]) -> str | None:
    return rules.get(name) or next((rule for p, rule in rules.items() if fnmatch.fnmatch(name, p)), None)


def _rule(buffer: Buffer, rules: Mapping[str, str]) -> BufferRule:
    tensor = buffer.tensor
    allowed = _FLOATING_RULES if tensor.is_floating_point() else _INTEGER_RULES
    rule = _explicit(buffer.name, rules)
    if rule is None:
        return "keep" if _observes(buffer.owner) else _default_rule(tensor)
    if rule not in allowed:
        hint = nearest(rule, allowed)
        raise InputError(f"buffers.{buffer.name}", rule, f"{', '.join(allowed)} for {tensor.dtype}", hint)
    return cast(BufferRule, rule)


def _observes(module: nn.Module) -> bool:
    """Whether a module is one of torch's observers or fake quantisers: it gets the shape of its buffers with the data,
    and each worker observes its own.
    """
    kinds = {"ObserverBase", "FakeQuantizeBase"}
    return any(k.__name__ in kinds and k.__module__.startswith("torch.ao.") for k in type(module).__mro__)


def _default_rule(tensor: Tensor) -> BufferRule:
    if not tensor.is_floating_point():
        return "max" if tensor.numel() <= _LARGEST_COUNTER else "same"
    # Values beyond 1e18 stand for infinity; a weighted sum of them could overflow.
    return "mean" if bool((tensor.abs() < 1e18).all()) else "keep"


class MeanBuffers:
    """Floating-point buffers, averaged like parameters."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self._buffers = list(buffers)
        self._layout = FlatLayout.like(self._tensors())
        self.numel = self._layout.numel

    def check(self) -> None:
        """Raise `InputError` for a buffer whose shape changed since the beginning."""
        for buffer, shape in zip(self._buffers, self._layout.shapes, strict=True):
            _check_shape(buffer, shape, _FLOATING_RULES)

    def pack(self, flat: Tensor, weight: float) -> None:
        pack(self._layout.views(flat), self._tensors(), weight)

    def install(self, flat: Tensor, total: float) -> None:
        unpack(self._layout.views(flat), self._tensors(), total)

    def _tensors(self) -> list[Tensor]:
        return [buffer.tensor for buffer in self._buffers]


class IntegerBuffers:
    """Integer and boolean buffers, whose `values` are reduced by an element-wise maximum over members.

    For a buffer with the rule `same` the values are a digest and its negative: from max(digest) and
    −max(−digest) = min(digest), every member sees whether all are equal.
    """

    def __init__(self, largest: Sequence[Buffer], same: Sequence[Buffer]) -> None:
        self._largest, self._same = list(largest), list(same)
        self._shapes = [b.tensor.shape for b in largest]
        self.count = sum(b.tensor.numel() for b in largest) + 2 * len(same)

    def check(self) -> None:
        """Raise `InputError` for a buffer to be maximised whose shape changed since the beginning."""
        for buffer, shape in zip(self._largest, self._shapes, strict=True):
            _check_shape(buffer, shape, _INTEGER_RULES)

    def values(self) -> list[int]:
        values = [int(v) for buffer in self._largest for v in buffer.tensor.flatten().tolist()]
        for digest in map(_digest, self._same):
            values += [digest, -digest]
        return values

    def install(self, maxima: Sequence[int]) -> None:
        """Install the maxima. Raises `InputError`, on all members alike, if a buffer that must be the same differs."""
        left = list(maxima)
        for buffer in self._largest:
            tensor = buffer.tensor
            values, left = left[: tensor.numel()], left[tensor.numel() :]
            if tensor.numel() == 1:
                tensor.fill_(values[0])
            else:
                tensor.copy_(torch.tensor(values).to(tensor.dtype).view(tensor.shape))
        for buffer, highest, lowest in zip(self._same, left[0::2], left[1::2], strict=True):
            if highest != -lowest:
                raise InputError(f"buffers.{buffer.name}", "different on workers", "max, keep", "give it a rule")


def _check_shape(buffer: Buffer, shape: tuple[int, ...], rules: tuple[str, ...]) -> None:
    present = buffer.owner._buffers.get(buffer.key)
    found = None if present is None else tuple(buffer.tensor.shape)
    if found != tuple(shape):
        raise InputError(
            f"buffers.{buffer.name}",
            "gone" if found is None else f"of shape {found}, of {tuple(shape)} when training began",
            f"{', '.join(rules)}; and only with keep, by which each worker has its own, may a shape change",
            f'ctx.prepare_model(model, buffers={{"{buffer.name}": "keep"}}), or register it in its largest shape',
        )


def unsaved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that the model's `state_dict` leaves out (`persistent=False`)."""
    return {
        buffer.name: buffer.owner._buffers[buffer.key]  # type: ignore[misc]
        for buffer in _all_buffers(model)
        if buffer.key in buffer.owner._non_persistent_buffers_set
    }


@torch.no_grad()
def load_unsaved_buffers(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Load what `unsaved_buffers` returned for a model of the same kind."""
    fit_buffers(model, saved)
    for name, tensor in unsaved_buffers(model).items():
        if name in saved:
            tensor.copy_(saved[name])


def fit_buffers(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Give each buffer the shape that it has in `saved`, so that it can be loaded: a kept buffer may have grown."""
    for path, owner in model.named_modules():
        for key, tensor in owner._buffers.items():
            value = saved.get(f"{path}.{key}" if path else key)
            if value is None or (tensor is not None and tensor.shape == value.shape):
                continue
            owner._buffers[key] = torch.empty_like(
                value if tensor is None else value.to(tensor), device=_device(model, tensor)
            )


def _device(model: nn.Module, tensor: Tensor | None) -> torch.device:
    if tensor is not None:
        return tensor.device
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _digest(buffer: Buffer) -> int:
    content = buffer.tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=6).digest(), "little")
