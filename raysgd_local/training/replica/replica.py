"""One worker's copy of everything that training changes: models, optimizers, generators, the user's own state."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import nn

from raysgd_local.errors import InputError, UsageError
from raysgd_local.state.anchor import Anchor
from raysgd_local.state.compressed_messages import Residual
from raysgd_local.state.cpu_copy import on_cpu
from raysgd_local.state.replica_state import ReplicaState

Joining = Literal["donor", "own"]


class Stateful(Protocol):
    """What `ctx.register` takes."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@dataclass
class Prepared:
    """One optimizer with how it is stepped."""

    optimizer: torch.optim.Optimizer
    clip_grad_norm: float | None
    prepared_lrs: list[float]  # its groups' rates when it was prepared

    def parameters(self) -> list[torch.Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def load(self, state: dict[str, Any], prepared_lrs: list[float] | None) -> None:
        """Take over another's state, or a checkpoint's; `prepared_lrs` are the rates that its optimizer began with.

        A rate that the loop had not changed is this optimizer's own: a run may go on with another one. Without
        `prepared_lrs` the state is of a version in which the loop's rates had no effect.
        """
        own = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state)
        for i, group in enumerate(self.optimizer.param_groups[: len(self.prepared_lrs)]):
            if prepared_lrs is None:
                group["lr"] = own[i]
            elif i < len(prepared_lrs) and float(group["lr"]) == prepared_lrs[i]:
                group["lr"] = self.prepared_lrs[i]


@dataclass
class Replica:
    """What `prepare_*` and `register` collected; complete when the loop begins its first epoch."""

    models: list[nn.Module] = field(default_factory=list)
    optimizers: list[Prepared] = field(default_factory=list)
    scaler: torch.amp.GradScaler | None = None
    registered: dict[str, tuple[Stateful, Joining]] = field(default_factory=dict)
    buffer_rules: dict[str, str] = field(default_factory=dict)
    optimizer_state: Literal["keep", "reset", "average"] = "keep"
    anchor: Anchor | None = None
    residual: Residual | None = None
    highest_lr: float = (
        0.0  # of the first parameter group, as far as the loop went: schedules of τ see decay from it
    )

    def averaged(self) -> ReplicaState:
        """What of it travels. Raises `UsageError` without a model or an optimizer."""
        if not self.models or not self.optimizers:
            raise UsageError("call ctx.prepare_model and ctx.prepare_optimizer before the first ctx.epochs")
        model = self.models[0] if len(self.models) == 1 else nn.ModuleList(self.models)
        return ReplicaState(
            model,
            [prepared.optimizer for prepared in self.optimizers],
            optimizer_state=self.optimizer_state,
            buffers=self.buffer_rules,
        )

    def shown(self) -> AbstractContextManager[None]:
        """The method's model is in the models meanwhile: the anchor, where this worker may be elsewhere."""
        return nullcontext() if self.anchor is None else self.anchor.shown()

    def shared_state(self) -> dict[str, Any]:
        """What is replicated: the method's model, and its anchor with the outer step's buffers where it has one."""
        state: dict[str, Any] = {"model": self.model_state()}
        return state if self.anchor is None else {**state, "anchor": self.anchor.state()}

    def load_shared_state(self, state: dict[str, Any]) -> None:
        """Take over another's, or a checkpoint's; one's own parameters are then the model's, and nothing was left out
        of a message.
        """
        self.load_model_state(state["model"])
        if self.residual is not None:
            self.residual.clear()
        if self.anchor is not None and "anchor" in state:
            self.anchor.load(state["anchor"])
        elif self.anchor is not None:  # a checkpoint of a run without one
            self.anchor.take()

    def model_state(self) -> dict[str, Any]:
        """The method's model: a plain `state_dict` on the CPU without shared storage; with several models, one under
        each's number.
        """
        with self.shown():
            states = [on_cpu(model.state_dict()) for model in self.models]
        return states[0] if len(states) == 1 else {str(i): state for i, state in enumerate(states)}

    def load_model_state(self, state: dict[str, Any]) -> None:
        states = [state] if len(self.models) == 1 else [state[str(i)] for i in range(len(self.models))]
        for model, own in zip(self.models, states, strict=True):
            model.load_state_dict(own)

    def own_state(self) -> dict[str, Any]:
        """What the method keeps of this worker alone, for its part of a checkpoint: parameters where workers stay
        apart, and what compression left out.
        """
        parameters = None if self.anchor is None else self.anchor.own_state()
        residual = None if self.residual is None else self.residual.before
        state: dict[str, Any] = on_cpu({"parameters": parameters, "residual": residual})
        return state

    def load_own_state(self, state: dict[str, Any]) -> None:
        if self.anchor is not None and state["parameters"] is not None:
            self.anchor.load_own(state["parameters"])
        if self.residual is not None and state["residual"] is not None:
            self.residual.load(state["residual"])

    def local_state(self) -> dict[str, Any]:
        """What this worker alone has: optimizers, the loss scale, what the user registered."""
        state: dict[str, Any] = {"optimizers": [on_cpu(p.optimizer.state_dict()) for p in self.optimizers]}
        state["prepared_lrs"] = [list(p.prepared_lrs) for p in self.optimizers]
        state["highest_lr"] = self.highest_lr
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        state["registered"] = {name: on_cpu(obj.state_dict()) for name, (obj, _) in self.registered.items()}
        return state

    def check_registered(self) -> None:
        """Raise `InputError` for registered state that could not be loaded without unpickling code."""
        for name, (obj, _) in self.registered.items():
            try:
                from_bytes(to_bytes({name: on_cpu(obj.state_dict())}))
            except Exception as error:
                allowed = "a state_dict of tensors, numbers, strings, lists and dicts"
                raise InputError(f"ctx.register({name!r})", type(obj).__name__, allowed, str(error)) from error

    def load_local_state(self, state: dict[str, Any], joining: bool) -> None:
        """Take over another's local state, or one's own from a checkpoint (then all of it)."""
        rates = state.get("prepared_lrs", [None] * len(self.optimizers))
        for prepared, own, prepared_lrs in zip(self.optimizers, state["optimizers"], rates, strict=True):
            prepared.load(own, prepared_lrs)
        self.highest_lr = state.get("highest_lr", 0.0)
        if self.scaler is not None and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])
        for name, (obj, rule) in self.registered.items():
            if name in state["registered"] and not (joining and rule == "own"):
                obj.load_state_dict(state["registered"][name])


def to_bytes(state: dict[str, Any]) -> bytes:
    """The state as `torch.save` writes it."""
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def from_bytes(content: bytes) -> dict[str, Any]:
    """Load what `to_bytes` wrote; nothing but tensors and plain values is ever unpickled."""
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state
