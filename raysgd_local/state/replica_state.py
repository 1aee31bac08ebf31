"""The averaged state of one replica, and the rule by which each piece of it is averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from raysgd_local.errors import InputError, UsageError, nearest
from raysgd_local.state.batchnorm import PooledStatistics, statistics_layers
from raysgd_local.state.buffers import (
    IntegerBuffers,
    MeanBuffers,
    buffers_by_rule,
    explicit_names,
    fit_buffers,
    parameter_rules,
)
from raysgd_local.state.cpu_copy import on_cpu
from raysgd_local.state.flat_vector import FlatLayout, checksum, pack, unpack
from raysgd_local.state.frozen import FrozenParameters
from raysgd_local.state.gradients import Gradients
from raysgd_local.state.optimizer_state import AveragedOptimizers
from raysgd_local.state.packing import PackedBlocks, Packing

__all__ = ["OptimizerPolicy", "ReplicaState", "checksum"]

OptimizerPolicy = Literal["keep", "reset", "average"]


class _Packed(Protocol):
    """A section of the flat vector that is written from local state."""

    numel: int  # length of the section

    def pack(self, flat: Tensor, weight: float) -> None: ...


class _Section(_Packed, Protocol):
    """A section whose weighted mean is installed from the weighted sum `flat` and the sum `total` of the weights."""

    def install(self, flat: Tensor, total: float) -> None: ...


class ReplicaState:
    """One replica's side of an averaging: packs its weighted state into a flat vector and installs the mean.

    | state | rule |
    |---|---|
    | parameters | weighted mean in float32, or in float64 if any state is; tied ones once; written in place |
    | frozen parameters (`requires_grad=False`) | not in the vector; checked to be equal (`FrozenParameters`) |
    | normalisation statistics | pooled (`PooledStatistics`) |
    | other floating buffers | weighted mean, or `keep` |
    | integer, boolean buffers | maximum (`max`), checked to be the `same` (large ones), or `keep` |
    | optimizer state | `keep`, `reset` at each commit, or `average` (`AveragedOptimizers`) |

    `buffers` maps names, or patterns like `"*.mask"`, to rules; for a frozen parameter these are `same` (the default),
    `mean`, as if it trained, or `keep`. `beside`: parameters that optimizers have and the model has not.

    The vector has `numel` elements of `dtype`, laid out as [parameters or gradients | statistics and buffers |
    optimizer state or gradients' presence]. Integers must stay exact, so they are reduced separately, as
    `integers()`. All members must build it from the same model.

    Raises `InputError` for an unknown rule, buffer or policy and for an optimizer that can't be averaged, and
    `UsageError` for a model whose lazy layers have no shape yet.

    >>> model, other = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    >>> states = [ReplicaState(model), ReplicaState(other)]
    >>> mean = (model.weight + 3 * other.weight).detach() / 4
    >>> flats = [torch.zeros(state.numel) for state in states]
    >>> [state.pack(flat, weight) for state, flat, weight in zip(states, flats, [1.0, 3.0])]
    [True, True]
    >>> for state in states:
    ...     state.install(flats[0] + flats[1], total_weight=4.0)
    >>> bool(torch.equal(model.weight, other.weight) and torch.allclose(model.weight, mean))
    True
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer] = (),
        *,
        optimizer_state: OptimizerPolicy = "keep",
        buffers: Mapping[str, str] | None = None,
        beside: Mapping[str, nn.Parameter] | None = None,
    ) -> None:
        _check(model, optimizer_state)
        self._model, self._optimizers, self._policy = model, list(optimizers), optimizer_state
        self._beside = dict(beside or {})
        self._collect_parameters({**dict(model.named_parameters()), **self._beside}, buffers or {})
        self._layout = FlatLayout.like(_real(self._parameters))
        self.dtype = _dtype([*self._parameters, *model.buffers()])
        self._collect_buffers(buffers or {})
        averaged = self._optimizers if optimizer_state == "average" else []
        self._averaged = AveragedOptimizers(averaged, self.dtype)
        self._gradients = Gradients(self._parameters, self._layout, None)
        self._blocks = PackedBlocks(self._layout)
        self._tail = self._layout.numel + self._statistics.numel + self._mean.numel
        self.numel = self._tail + max(self._averaged.numel, self._gradients.numel)
        self._ends = [*self._blocks.ends[:-1], self.numel]  # the last block includes all sections after the first

    def _collect_parameters(self, named: Mapping[str, nn.Parameter], rules: Mapping[str, str]) -> None:
        frozen = {name: p for name, p in named.items() if not p.requires_grad}
        found = parameter_rules(frozen, rules)
        self._described = {
            f"parameter {name!r}": f"{_described(p)}{'' if p.requires_grad else ', frozen'}"
            for name, p in named.items()
            if found.get(name) != "keep"
        }
        self._parameters = [p for name, p in named.items() if found.get(name, "mean") == "mean"]
        self._frozen = FrozenParameters({name: p for name, p in frozen.items() if found[name] == "same"})
        self.device = next((p.device for p in named.values()), torch.device("cpu"))

    def _collect_buffers(self, rules: Mapping[str, str]) -> None:
        explicit = explicit_names(self._model, rules)
        self._statistics = PooledStatistics(statistics_layers(self._model, explicit), self.dtype, self.device)
        names = {name for name, p in self._model.named_parameters() if not p.requires_grad}
        found = buffers_by_rule(self._model, rules, self._statistics.names, names)
        self._described |= {
            f"buffer {b.name!r}": _described(b.tensor) for rule in ("mean", "max", "same") for b in found[rule]
        }
        self._described |= {f"buffer {name!r}": "pooled" for name in sorted(self._statistics.names)}
        self._mean = MeanBuffers(found["mean"])
        self._integers = IntegerBuffers(found["max"], found["same"])

    def pack(self, flat: Tensor, weight: float) -> bool:
        """Write `weight` × state into `flat[:numel]`. If that is not finite (`Packing.finite`): zeros, and False.

        A weight of 0 writes zeros, whatever the state is.
        """
        return self.packing(flat, weight).complete()

    def packing(self, flat: Tensor, weight: float) -> Packing:
        """Like `pack`, in blocks that are written and checked as they are drawn."""
        return self._packing(flat, weight, _real(self._parameters), self._averaged)

    def packing_gradients(self, flat: Tensor, weight: float, stepping: int = 0) -> Packing:
        """Like `packing`, with gradients in the place of parameters, in `flat[:numel]` too.

        `stepping`: the bits of the optimizers with whose parameters' gradients they step; 0: all gradients.
        """
        gradients = self._gradients_of(stepping)
        return self._packing(flat, weight, gradients.own(), gradients)

    def _gradients_of(self, stepping: int) -> Gradients:
        if not stepping:
            return self._gradients
        chosen = [optimizer for number, optimizer in enumerate(self._optimizers) if stepping >> number & 1]
        ids = {id(p) for optimizer in chosen for group in optimizer.param_groups for p in group["params"]}
        return Gradients(self._parameters, self._layout, ids)

    @torch.no_grad()
    def install(self, flat: Tensor, total_weight: float) -> None:
        """Commit: set this replica to `flat[:numel]` / `total_weight`, where `flat` is the members' weighted sum.

        `flat` is not changed. Call `install_integers` first: averaged optimizer state depends on the step counts.
        """
        unpack(self._layout.views(flat[: self._layout.numel]), _real(self._parameters), total_weight)
        self.install_rest(flat, total_weight)

    def described(self) -> dict[str, str]:
        """Return by name the shape and type of each part that members average, or check to be equal."""
        return dict(self._described)

    @property
    def ends(self) -> list[int]:
        """The ends of the blocks in which the vector is written: the same on all members."""
        return self._ends

    @property
    def parameter_sizes(self) -> list[int]:
        """The number of elements of each parameter, in the vector's order."""
        return self._layout.sizes

    def parameters(self) -> list[Tensor]:
        """Return the parameters in the vector's order, complex ones viewed as real. They share the model's memory."""
        return _real(self._parameters)

    @torch.no_grad()
    def pack_parameters(self, flat: Tensor, weight: float) -> None:
        """Write `weight` × parameters into `flat`, which has as many elements as the parameters."""
        pack(self._layout.views(flat), _real(self._parameters), weight)

    @torch.no_grad()
    def install_parameters(self, flat: Tensor) -> None:
        """Copy `flat`, which has as many elements as the parameters, into the parameters."""
        unpack(self._layout.views(flat), _real(self._parameters), 1.0)

    @torch.no_grad()
    def install_rest(self, flat: Tensor, total_weight: float) -> None:
        """Install everything but the parameters. `install` includes it."""
        self.install_buffers(flat, total_weight)
        self._averaged.install(flat[self._tail : self._tail + self._averaged.numel], total_weight)
        if self._policy == "reset":
            for optimizer in self._optimizers:
                optimizer.state.clear()

    @torch.no_grad()
    def install_gradients(self, flat: Tensor, total_weight: float, stepping: int = 0) -> None:
        """Write the mean gradients into `.grad`. Call `install_buffers` after the optimizers' step."""
        presence = flat[self._tail : self._tail + self._gradients.numel]
        self._gradients_of(stepping).install(flat[: self._layout.numel], presence, total_weight)

    @torch.no_grad()
    def install_buffers(self, flat: Tensor, total_weight: float) -> None:
        """Install pooled statistics and mean buffers. `install` includes it."""
        for section, begin in self._buffer_sections():
            section.install(flat[begin : begin + section.numel], total_weight)

    def integers(self) -> list[int]:
        """Return the integers to be reduced by an element-wise maximum over members. Their number never changes."""
        digests = [self._frozen.digest, -self._frozen.digest] if self._frozen else []
        return [*digests, *self._integers.values(), *self._averaged.steps()]

    @torch.no_grad()
    def install_integers(self, values: Sequence[int]) -> None:
        """Install the element-wise maxima of all members' `integers()`.

        Raises `InputError`, on all members alike, if a frozen parameter or a buffer with the rule `same` differs
        between members.
        """
        if self._frozen:
            self._frozen.check_equal(values[0], -values[1])
            values = values[2:]
        self._integers.install(values[: self._integers.count])
        self._averaged.install_steps(values[self._integers.count :])

    def check(self) -> None:
        """Raise `UsageError` or `InputError` if the vector's layout no longer fits. Call it before each reduction."""
        self._frozen.check()
        self._mean.check()
        self._integers.check()

    def begin_view(self) -> None:
        """Read all frozen parameters, once a view. Raises `UsageError` if the loop changed one."""
        self._frozen.check(thorough=True)

    def checksum(self, flat: Tensor) -> int:
        """Return a 48-bit checksum of `flat[:numel]`."""
        return checksum(flat[: self.numel])

    @torch.no_grad()
    def rebase(self) -> None:
        """Take the present BatchNorm statistics, and the frozen parameters, as the committed ones.

        Call it after a replica received a committed state: in a joiner or a resumed run.
        """
        self._statistics.rebase()
        self._frozen.remember()

    @property
    def _installed_optimizers(self) -> list[torch.optim.Optimizer]:
        return [] if self._policy == "keep" else self._optimizers

    def snapshot(self) -> dict[str, Any]:
        """Copy all that an installation changes to the CPU: model, statistics, optimizers unless each keeps its own."""
        state = {
            "model": self._model.state_dict(),
            "buffers": dict(self._model.named_buffers()),
            "beside": self._beside,
            "optimizers": [optimizer.state_dict() for optimizer in self._installed_optimizers],
            "statistics": self._statistics.anchors,
        }
        return cast(dict[str, Any], on_cpu(state))

    @torch.no_grad()
    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore a `snapshot`, in place."""
        fit_buffers(self._model, snapshot["buffers"])
        self._model.load_state_dict(snapshot["model"])
        for name, buffer in self._model.named_buffers():
            buffer.copy_(snapshot["buffers"][name])
        for name, parameter in self._beside.items():
            parameter.copy_(snapshot["beside"][name])
        for optimizer, state in zip(self._installed_optimizers, snapshot["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self._statistics.rebase(snapshot["statistics"])

    @torch.no_grad()
    def _packing(self, flat: Tensor, weight: float, leading: Sequence[Tensor | None], tail: _Packed) -> Packing:
        own = flat[: self.numel]
        if not weight:
            own.zero_()
            return Packing(own, self._ends, lambda _: None)
        write_leading = self._blocks.writer(own, leading, weight)

        @torch.no_grad()
        def write(number: int) -> None:
            write_leading(number)
            if number == len(self._ends) - 1:
                self._pack_rest(own[self._layout.numel :], weight, tail)

        return Packing(own, self._ends, write)

    def _pack_rest(self, rest: Tensor, weight: float, tail: _Packed) -> None:
        """Pack the sections after parameters or gradients."""
        for section, begin in self._buffer_sections():
            start = begin - self._layout.numel
            section.pack(rest[start : start + section.numel], weight)
        start = self._tail - self._layout.numel
        tail.pack(rest[start : start + tail.numel], weight)
        rest[start + tail.numel :].zero_()

    def _buffer_sections(self) -> list[tuple[_Section, int]]:
        begin = self._layout.numel
        return [(self._statistics, begin), (self._mean, begin + self._statistics.numel)]


def _check(model: nn.Module, policy: str) -> None:
    if policy not in get_args(OptimizerPolicy):
        allowed = get_args(OptimizerPolicy)
        raise InputError("optimizer_state", policy, ", ".join(allowed), nearest(policy, allowed))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
            raise UsageError(f"{name} has no shape yet: run one batch through the model before it is prepared")


def _described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _real(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]


def _dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    wide = (torch.float64, torch.complex128)
    return torch.float64 if any(tensor.dtype in wide for tensor in tensors) else torch.float32
