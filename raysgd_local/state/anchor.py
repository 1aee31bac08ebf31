"""The anchor: a copy of the committed parameters, for methods that need them besides the model's own parameters.

An outer optimizer (such as SlowMo's) moves the anchor; elastic averaging pulls members towards it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from raysgd_local.algorithms.averaging import Averaging
from raysgd_local.algorithms.outer import Outer, OuterStep
from raysgd_local.errors import InputError, UsageError
from raysgd_local.state.cpu_copy import on_cpu
from raysgd_local.state.flat_vector import FlatLayout, pack, unpack


class Anchor:
    """The anchor, one flat vector (d,), with the outer optimizer and its buffers.

    `own()` returns this member's parameters, which are written in place. Everything else is replicated: every
    member must commit the same means.
    """

    def __init__(
        self,
        own: Callable[[], Sequence[Tensor]],
        dtype: torch.dtype,
        device: torch.device,
        outer: Outer | None,
        averaging: Averaging,
    ) -> None:
        self._own = own
        self._layout = FlatLayout.like(own())
        self._parameter = nn.Parameter(torch.empty(self._layout.numel, dtype=dtype, device=device), False)
        self._outer, self._averaging = outer, averaging
        self._optimizer: torch.optim.Optimizer | None = None
        self._step = OuterStep()
        self._behind = False  # the anchor is out of date: `flat` has to copy this member's parameters
        self.apart = averaging.coupling(1) is not None  # members' parameters may differ from the anchor
        self.take()

    @property
    def numel(self) -> int:
        """Number of elements of all parameters together: d."""
        return self._layout.numel

    @property
    def flat(self) -> Tensor:
        """The committed parameters, (d,)."""
        if self._behind:
            self.take()
        return self._parameter.detach()

    @torch.no_grad()
    def take(self) -> None:
        """Set the anchor to this member's parameters, and forget the outer optimizer's buffers."""
        self._behind, self._optimizer = False, None
        pack(self._layout.views(self._parameter.detach()), self._own(), 1.0)

    def part(self) -> None:
        """Note that members trained on, away from the anchor."""
        self.apart = True

    def rejoin(self) -> None:
        """Move this member to the anchor, unless the method couples members elastically.

        For the end of partial averaging, when the anchor is the mean of all members and none trained since.
        """
        if self._averaging.coupling(1) is None:
            self.apart = False
            self.show()

    def leave(self) -> None:
        """Begin gradient mode, in which members are equal: the anchor is their parameters, copied when needed."""
        self._behind, self._optimizer, self.apart = True, None, False

    @torch.no_grad()
    def commit(
        self,
        mean: Tensor,
        workers: int,
        lr: float,
        *,
        stay: bool = False,
        healthy: bool = True,
        sent: Tensor | None = None,
    ) -> None:
        """Commit a round: move the anchor by the outer step, and this member to it or (elastically) towards it.

        `mean`: weighted mean of the members' parameters, (d,). `workers`: members of the round. `lr`: learning rate
        at its start. `stay`: the anchor becomes the mean, and members keep their parameters.
        `healthy`: False if this member's state was not finite; it then goes to the anchor in any case.
        `sent`: anchor − parameters as they entered the mean, (d,), if compression changed them: an elastic coupling
        must pull the member and the anchor by the same difference.
        """
        coupling = None if stay else self._averaging.coupling(workers)
        if coupling is not None:
            self._pull(coupling.pull, sent)
            self._parameter.lerp_(mean, coupling.push)
        elif stay:
            self._parameter.copy_(mean)
        else:
            self._move(mean, workers, lr)
        self.apart = stay or coupling is not None
        if not (self.apart and healthy):
            self.show()

    def _pull(self, share: float, sent: Tensor | None) -> None:
        if sent is not None:
            for tensor, way in zip(self._own(), self._layout.views(sent), strict=True):
                tensor.copy_(tensor.to(way) + share * way)
            return
        for tensor, anchor in zip(self._own(), self._layout.views(self.flat), strict=True):
            tensor.copy_(torch.lerp(tensor.to(anchor), anchor, share))

    def _move(self, mean: Tensor, workers: int, lr: float) -> None:
        step = self._outer.step(workers, lr) if self._outer is not None else None
        if step is None:
            self._optimizer = None
            self._parameter.copy_(mean)
            return
        gradient = torch.sub(self._parameter, mean).mul_(step.scale)
        if step.max_norm is not None:
            gradient.mul_((step.max_norm / gradient.norm()).clamp(max=1.0))
        optimizer = self._optimizer_for(step)
        self._parameter.grad = gradient
        optimizer.step()
        self._parameter.grad = None

    def _optimizer_for(self, step: OuterStep) -> torch.optim.Optimizer:
        """Return the optimizer with its buffers so far, set to the step's options."""
        if self._optimizer is None or step.optimizer != self._step.optimizer:
            self._optimizer = make_optimizer(self._parameter, step)
        self._optimizer.param_groups[0].update(_arguments(step))
        self._step = step
        return self._optimizer

    @torch.no_grad()
    def show(self) -> None:
        """Copy the anchor into this member's parameters."""
        unpack(self._layout.views(self.flat), self._own(), 1.0)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Copy the anchor into the model for the time of a `with` block; then restore its own parameters."""
        own = self.own_state()
        if own is None:
            yield
            return
        self.show()
        try:
            yield
        finally:
            self.load_own(own)

    def own_state(self) -> list[Tensor] | None:
        """Return a copy of this member's parameters if they may differ from the anchor, else None."""
        return [tensor.detach().clone() for tensor in self._own()] if self.apart else None

    @torch.no_grad()
    def load_own(self, own: Sequence[Tensor]) -> None:
        """Restore an `own_state`."""
        for tensor, value in zip(self._own(), own, strict=True):
            tensor.copy_(value)
        self.apart = True

    def saved(self) -> tuple[Any, ...]:
        """Return all that a commit changes, for `restore`; this member's own parameters excepted."""
        buffers = None if self._optimizer is None else copy.deepcopy(self._optimizer.state_dict())
        return self._parameter.detach().clone(), self._optimizer, buffers, self._step, self._behind, self.apart

    @torch.no_grad()
    def restore(self, saved: tuple[Any, ...]) -> None:
        """Go back to what was `saved`."""
        flat, self._optimizer, buffers, self._step, self._behind, self.apart = saved
        self._parameter.copy_(flat)
        if self._optimizer is not None:
            self._optimizer.load_state_dict(buffers)

    def state(self) -> dict[str, Any]:
        """Return the replicated state, on the CPU: for joiners and checkpoints."""
        state: dict[str, Any] = {"anchor": self.flat, "outer": None}
        if self._optimizer is not None:
            step = {"optimizer": self._step.optimizer, "options": dict(self._step.options)}
            state["outer"] = {"step": step, "buffers": self._optimizer.state_dict()}
        copied: dict[str, Any] = on_cpu(state)
        return copied

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`, and copy the anchor into this member's parameters.

        Raises `UsageError` if it is of a model of which other parameters trained.
        """
        if state["anchor"].numel() != self.numel:
            raise UsageError(
                f"the state is of a run in which {state['anchor'].numel()} elements of parameters trained; here "
                f"these are {self.numel}: freeze the same parameters (requires_grad=False), or start another run from "
                "model.pt"
            )
        self._behind, self._optimizer = False, None
        self._parameter.copy_(state["anchor"])
        if state["outer"] is not None:
            self._optimizer_for(OuterStep(**state["outer"]["step"])).load_state_dict(state["outer"]["buffers"])
        self.show()


def check_outer(outer: Outer | None) -> None:
    """Raise `InputError` if the outer step's optimizer doesn't accept its options."""
    step = outer.step(2, 0.1) if outer is not None else None
    if step is not None:
        try:
            make_optimizer(nn.Parameter(torch.zeros(1)), step)
        except InputError as error:
            raise error.under("algorithm.outer") from error


def make_optimizer(parameter: nn.Parameter, step: OuterStep) -> torch.optim.Optimizer:
    """Make the outer step's optimizer. Raises `InputError` for options that it doesn't accept."""
    name = step.optimizer
    kind: Any = getattr(torch.optim, name)
    known = kind([parameter], lr=1.0).defaults
    decay = {"weight_decay": 0.0} if "weight_decay" in known else {}
    try:
        made: torch.optim.Optimizer = kind([parameter], **{**decay, **_arguments(step)})
    except (TypeError, ValueError) as error:
        allowed = f"{name}'s {', '.join(option for option in known if option != 'lr')}"
        raise InputError("options", dict(step.options), allowed, str(error)) from error
    return made


def _arguments(step: OuterStep) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in step.options.items()}
