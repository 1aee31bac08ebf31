"""A replica: one worker's copy of everything that training changes (models, optimizers, registered user state)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

import torch
from torch import nn

from raysgd_local.errors import InputError, UsageError
from raysgd_local.state.anchor import Anchor
from raysgd_local.state.buffers import fit_buffers, load_unsaved_buffers, unsaved_buffers
from raysgd_local.state.compressed_messages import Residual
from raysgd_local.state.cpu_copy import on_cpu
from raysgd_local.state.replica_state import ReplicaState
from raysgd_local.training.replica.plain_values import check_plain
from raysgd_local.training.replica.schedulers import Schedulers

Joining = Literal["donor", "own"]


class Stateful(Protocol):
    """An object that `ctx.register` accepts."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@dataclass
class Prepared:
    """An optimizer that was passed to `ctx.prepare_optimizer`."""

    optimizer: torch.optim.Optimizer
    clip_grad_norm: float | None  # largest norm of its gradients
    prepared_lrs: list[float]  # its parameter groups' rates at that moment
    shown: list[tuple[Any, Any]] = field(
        default_factory=list
    )  # by group, the rate that it shows and the loop's own

    def parameters(self) -> list[torch.Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def loop_lrs(self) -> list[Any]:
        """Return the parameter groups' rates as the loop set them, before our factor."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for i, (shown, own) in enumerate(self.shown):
            rates[i] = own if rates[i] is shown else rates[i]
        return rates

    def apply(self, factor: float) -> None:
        """Multiply the loop's rates by `factor` for the next step."""
        rates = self.loop_lrs()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate if factor == 1.0 else rate * factor
        self.shown = [(group["lr"], rate) for group, rate in zip(self.optimizer.param_groups, rates, strict=True)]

    def applied(self) -> None:
        """After the step, give the groups the loop's rates back if a scheduler of torch's goes on from them."""
        if hasattr(self.optimizer.step, "_wrapped_by_lr_sched"):
            for group, (_, rate) in zip(self.optimizer.param_groups, self.shown, strict=True):
                group["lr"] = rate
            self.shown = []

    def rates(self) -> dict[str, list[float]]:
        """Return the rates that a checkpoint keeps: the loop's at first, and now."""
        return {"prepared": list(self.prepared_lrs), "now": [float(rate) for rate in self.loop_lrs()]}

    def load(self, state: dict[str, Any], rates: dict[str, list[float]] | None) -> None:
        """Load the state of a donor, or of a checkpoint, with its `rates`.

        A rate that the loop had not changed is this optimizer's own: a run may go on with another one. Without `rates`
        the state is of a version in which the loop's rates had no effect.
        """
        own = self.loop_lrs()
        self.optimizer.load_state_dict(state)
        self.shown = []
        for i, group in enumerate(self.optimizer.param_groups):
            if rates is None:
                group["lr"] = own[i]
            elif rates["now"][i] == rates["prepared"][i]:
                group["lr"] = self.prepared_lrs[i]
            else:
                group["lr"] = rates["now"][i]


@dataclass
class Replica:
    """The objects passed to `ctx.prepare_*` and `ctx.register`. Complete when the loop begins its first epoch.

    Its state has three parts. Shared state is equal on all members. Local state (optimizers, loss scale, registered
    objects) differs between members; a joiner starts with a donor's. Own state (diverging parameters, the residual)
    makes sense only on this member.
    """

    models: list[nn.Module] = field(default_factory=list)
    optimizers: list[Prepared] = field(default_factory=list)
    scaler: torch.amp.GradScaler | None = None
    # by name; a joiner takes the donor's state, or keeps its own
    registered: dict[str, tuple[Stateful, Joining]] = field(default_factory=dict)
    buffer_rules: dict[str, str] = field(default_factory=dict)  # the user's, by buffer name or pattern
    optimizer_state: Literal["keep", "reset", "average"] = "keep"
    anchor: Anchor | None = None  # for methods that need the committed parameters
    residual: Residual | None = None  # for compression with error feedback
    highest_lr: float = 0.0  # the highest rate so far of the first parameter group: the base of the loop's decay
    schedulers: Schedulers = field(default_factory=Schedulers)  # of `registered`, torch's of learning rates
    groups: list[list[int]] | None = None  # of each optimizer's groups, their sizes when training began

    def averaged(self) -> ReplicaState:
        """Return the averaged part of the state. Raises `UsageError` without a model or an optimizer."""
        if not self.models or not self.optimizers:
            raise UsageError("call ctx.prepare_model and ctx.prepare_optimizer before the first ctx.epochs")
        self.groups = self._groups()
        model = self.models[0] if len(self.models) == 1 else nn.ModuleList(self.models)
        return ReplicaState(
            model,
            [prepared.optimizer for prepared in self.optimizers],
            optimizer_state=self.optimizer_state,
            buffers=self.buffer_rules,
            beside=self.beside(),
        )

    def stepping(self, bits: int) -> list[tuple[int, Prepared]]:
        """Return the optimizers, with their numbers, whose bits are set; for 0 all."""
        return [(i, prepared) for i, prepared in enumerate(self.optimizers) if not bits or bits >> i & 1]

    def described(self, state: ReplicaState) -> dict[str, str]:
        """Describe the parts that all members need alike, by name: state to average, optimizers, registered objects."""
        found = state.described()
        for i, (prepared, groups) in enumerate(zip(self.optimizers, self._groups(), strict=True)):
            found[f"optimizer {i}"] = f"{type(prepared.optimizer).__name__} with groups of {groups} parameters"
        found["loss scale"] = "prepared" if self.scaler is not None else "not prepared"
        for name, (obj, rule) in sorted(self.registered.items()):
            if rule == "donor":
                found[f"ctx.register({name!r})"] = type(obj).__name__
        return found

    def beside(self) -> dict[str, nn.Parameter]:
        """Return the parameters that the optimizers have and the models have not (of a loss, for example)."""
        known = {id(p) for model in self.models for p in model.parameters()}
        found: dict[str, nn.Parameter] = {}
        for i, prepared in enumerate(self.optimizers):
            for j, parameter in enumerate(prepared.parameters()):
                if id(parameter) not in known:
                    known.add(id(parameter))
                    found[f"optimizer {i}, parameter {j} (in no prepared model)"] = cast(nn.Parameter, parameter)
        return found

    def check_dense(self) -> None:
        """Raise `InputError` for an optimizer that can't step with a mean of gradients, which is dense."""
        if any(isinstance(prepared.optimizer, torch.optim.SparseAdam) for prepared in self.optimizers):
            allowed = (
                "an optimizer that takes dense gradients (SGD, Adagrad, Adam, …), where gradients are averaged"
            )
            hint = "a schedule of local steps, such as FixedPeriod(16), averages no gradients"
            raise InputError("optimizer", "SparseAdam", allowed, hint)

    def check_groups(self) -> None:
        """Raise `UsageError` if an optimizer's parameter groups are others than when training began."""
        if self.groups is not None and self.groups != self._groups():
            raise UsageError(
                f"an optimizer's parameter groups changed after the first ctx.epochs: they had {self.groups} "
                f"parameters, and have {self._groups()}. A worker that joins later could not follow: add all groups "
                "before ctx.prepare_optimizer (with lr=0 until they train), or end this run and start another one "
                "from its model.pt"
            )

    def _groups(self) -> list[list[int]]:
        return [[len(g["params"]) for g in prepared.optimizer.param_groups] for prepared in self.optimizers]

    def shown(self) -> AbstractContextManager[None]:
        """Copy the method's model (the anchor) into the models for a `with` block, if they may differ from it."""
        return nullcontext() if self.anchor is None else self.anchor.shown()

    def shared_state(self) -> dict[str, Any]:
        """Return the shared state: the model, with all its buffers, and parameters beside it; and if there is an
        anchor, the anchor and the outer step's buffers.
        """
        with self.shown():
            beside = on_cpu(list(self.beside().values()))
        state: dict[str, Any] = {"model": self.model_state(), "beside": beside}
        state["unsaved_buffers"] = [on_cpu(unsaved_buffers(model)) for model in self.models]
        return state if self.anchor is None else {**state, "anchor": self.anchor.state()}

    def load_shared_state(self, state: dict[str, Any]) -> None:
        """Load the shared state of another member or a checkpoint, also into own parameters. Clears the residual."""
        self.load_model_state(state["model"])
        for model, saved in zip(self.models, state.get("unsaved_buffers", []), strict=False):
            load_unsaved_buffers(model, saved)
        self._load_beside(state.get("beside", []))
        if self.residual is not None:
            self.residual.clear()
        if self.anchor is not None and "anchor" in state:
            self.anchor.load(state["anchor"])
        elif self.anchor is not None:  # a checkpoint of a run without one
            self.anchor.take()

    @torch.no_grad()
    def _load_beside(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self.beside().values(), values, strict=False):
            parameter.copy_(value)

    def model_state(self) -> dict[str, Any]:
        """Return the method's model as a `state_dict` on the CPU without shared storage. With several models: a dict of
        these, by number.
        """
        with self.shown():
            states = [on_cpu(model.state_dict()) for model in self.models]
        return states[0] if len(states) == 1 else {str(i): state for i, state in enumerate(states)}

    def load_model_state(self, state: dict[str, Any]) -> None:
        states = [state] if len(self.models) == 1 else [state[str(i)] for i in range(len(self.models))]
        for model, own in zip(self.models, states, strict=True):
            fit_buffers(model, own)
            model.load_state_dict(own)

    def own_state(self) -> dict[str, Any]:
        """Return this worker's own state, for its part of a checkpoint: parameters that may differ from the anchor, and
        the residual of compression.
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
        """Return the local state: optimizers, loss scale, and the user's registered objects."""
        state: dict[str, Any] = {"optimizers": [on_cpu(p.optimizer.state_dict()) for p in self.optimizers]}
        state["optimizer_kinds"] = [type(p.optimizer).__name__ for p in self.optimizers]
        state["rates"] = [p.rates() for p in self.optimizers]
        state["highest_lr"] = self.highest_lr
        state["schedulers"] = self.schedulers.state()
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        state["registered"] = {name: on_cpu(obj.state_dict()) for name, (obj, _) in self.registered.items()}
        return state

    def check_registered(self) -> None:
        """Raise `InputError` for local state that can't be loaded without unpickling code."""
        check_local_state(self.local_state())

    def load_local_state(self, state: dict[str, Any], joining: bool) -> None:
        """Load local state: of a donor (`joining`), or this worker's own from a checkpoint."""
        rates = state.get("rates", [None] * len(self.optimizers))
        for prepared, own, of_own in zip(self.optimizers, state["optimizers"], rates, strict=True):
            prepared.load(own, of_own)
        self.highest_lr = state.get("highest_lr", 0.0)
        if self.scaler is not None and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])
        for name, (obj, rule) in self.registered.items():
            if name in state["registered"] and not (joining and rule == "own"):
                obj.load_state_dict(state["registered"][name])


def check_local_state(state: dict[str, Any]) -> None:
    """Raise `InputError` for a piece of a `local_state` that could be written, but not read back."""
    for name, registered in state["registered"].items():
        check_plain(registered, f"ctx.register({name!r})")
    check_plain({key: value for key, value in state.items() if key != "registered"}, "local state")
