"""Take optimizer steps, local or joint, with learning rate, clipping and loss scale.

A parameter group's `lr` is the training loop's to set: torch's schedulers, Hugging Face's and the loop itself do. A
step multiplies it by our factor (a `LearningRate`, warm-up, scaling with the workers). Afterwards the group shows the
rate that was applied; with a scheduler of torch's it has the loop's rate again, which the scheduler may multiply.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from raysgd_local.algorithms.learning_rate import LearningRate, Scaling, scale
from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.algorithms.weights.fednova import reach
from raysgd_local.control.control_slots import Control, Flags
from raysgd_local.errors import InputError
from raysgd_local.training.replica.replica import Prepared, Replica

Decay = Callable[[float], float]


class Stepper:
    """Takes the replica's optimizer steps. Arguments `samples` are those of all workers since the run began."""

    def __init__(self, replica: Replica, lr_scaling: Scaling = "none") -> None:
        self._replica, self._lr_scaling = replica, lr_scaling
        self.schedule: LearningRate | Decay = LearningRate()
        self.epoch_samples = 1  # size of the training set; 1 until it is known
        self.flags = Flags.NONE  # OVERFLOW if the present gradients overflowed
        self.good_steps = 0  # steps since the loss scale changed
        # optimizers whose gradients the loss scale is out of already, by number: whether these overflowed
        self._unscaled: dict[int, bool] = {}

    def decay(self, samples: int) -> float:
        """Return our decay factor times the loop's: its present rate over its highest so far."""
        epochs = samples / self.epoch_samples
        own = self.schedule.decay(epochs) if isinstance(self.schedule, LearningRate) else self.schedule(epochs)
        highest = max(self._replica.highest_lr, self._loop_lr)
        return own * (self._loop_lr / highest if highest else 1.0)

    def _factor(self, samples: int, workers: int) -> float:
        """Return decay × warm-up × scaling."""
        epochs = samples / self.epoch_samples
        if isinstance(self.schedule, LearningRate):
            return self.schedule.factor(epochs, self._lr_scaling, workers)
        return self.schedule(epochs) * scale(self._lr_scaling, workers)

    def lr(self, samples: int, workers: int, stepping: int = 0) -> float:
        """Return the learning rate of the first parameter group that steps, for `rounds.csv`."""
        _, first = self._replica.stepping(stepping)[0]
        return float(first.loop_lrs()[0]) * self._factor(samples, workers)

    def settled_lr(self, samples: int, workers: int) -> float:
        """Return the first parameter group's rate without warm-up, for schedules: base × decay × scaling."""
        highest = max(self._replica.highest_lr, self._loop_lr)
        return highest * self.decay(samples) * scale(self._lr_scaling, workers)

    @property
    def _loop_lr(self) -> float:
        """The first parameter group's rate as the loop has set it."""
        return float(self._replica.optimizers[0].loop_lrs()[0])

    @property
    def scale(self) -> float:
        scaler = self._replica.scaler
        return float(scaler.get_scale()) if scaler is not None else 0.0

    def step(self, samples: int, workers: int, stepping: int = 0) -> None:
        """Take a local step. In mixed precision an overflow skips it, on this worker only.

        `stepping`, here and below: the bits of the optimizers that step; 0: all. The others keep state and gradients.
        """
        overflow = self.unscale(stepping)
        self._step(samples, workers, stepping, skip=overflow)
        self._rescale(overflow, stepping)

    def drop(self, stepping: int = 0) -> None:
        """Drop the present gradients without a step."""
        self.flags = Flags.NONE
        for number, prepared in self._replica.stepping(stepping):
            self._unscaled.pop(number, None)
            prepared.optimizer.zero_grad()

    def unscale(self, stepping: int = 0) -> bool:
        """Divide the gradients by the loss scale, and return whether they overflowed. Sets `flags` for all members."""
        scaler = self._replica.scaler
        if scaler is None:
            return False
        chosen = self._replica.stepping(stepping)
        for number, prepared in chosen:
            if number not in self._unscaled:
                scaler.unscale_(prepared.optimizer)
                self._unscaled[number] = not _finite(prepared)
        overflow = any(self._unscaled[number] for number, _ in chosen)
        self.flags = Flags.OVERFLOW if overflow else Flags.NONE
        return overflow

    def joint_step(self, samples: int, workers: int, control: Control) -> None:
        """Take a step on the reduced gradients. If they overflowed on any member, all members skip it."""
        self.follow(control)
        overflow = bool(control.flags & Flags.OVERFLOW)
        self._step(samples, workers, control.stepping, skip=overflow)
        self._rescale(overflow, control.stepping)

    def follow(self, control: Control) -> None:
        """Step schedulers that were behind another member's when the exchange began."""
        ahead = [said.scheduler_steps for said in control.members if said.steps or not control.stepping]
        self._replica.schedulers.reach(max(ahead), control.stepping)

    def _step(self, samples: int, workers: int, stepping: int, skip: bool) -> None:
        self._replica.check_groups()
        factor = self._factor(samples, workers)
        self._replica.highest_lr = max(self._replica.highest_lr, self._loop_lr)
        for _, prepared in self._replica.stepping(stepping):
            if not skip:
                self._step_one(prepared, factor)
            prepared.optimizer.zero_grad()

    def _step_one(self, prepared: Prepared, factor: float) -> None:
        if prepared.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(prepared.parameters(), prepared.clip_grad_norm)
        prepared.apply(factor)
        prepared.optimizer.step()
        prepared.applied()

    def _rescale(self, overflow: bool, stepping: int) -> None:
        """Update the loss scale by GradScaler's rule: lower it after an overflow, raise it after enough good steps.

        Not by GradScaler itself, since `overflow` may be a joint decision of all members.
        """
        scaler = self._replica.scaler
        self.flags = Flags.NONE
        for number, _ in self._replica.stepping(stepping):
            self._unscaled.pop(number, None)
        if scaler is None:
            return
        self.good_steps = 0 if overflow else self.good_steps + 1
        factor = scaler.get_backoff_factor() if overflow else 1.0
        if self.good_steps >= scaler.get_growth_interval():
            self.good_steps, factor = 0, scaler.get_growth_factor()
        self._set_scale(scaler, scaler.get_scale() * factor)

    def _set_scale(self, scaler: torch.amp.GradScaler, scale: float) -> None:
        """Set the loss scale, also in the gradients that optimizers keep which did not step."""
        device = self._replica.optimizers[0].parameters()[0].device
        scaler.scale(torch.zeros((), device=device))  # a member without a batch has not used the scale yet
        before = scaler.get_scale()
        scaler.update(scale)
        factor = scaler.get_scale() / before
        kept = [p for number, p in enumerate(self._replica.optimizers) if number not in self._unscaled]
        for parameter in {id(p): p for prepared in kept for p in prepared.parameters()}.values():
            if factor != 1.0 and parameter.grad is not None:
                parameter.grad.mul_(factor)

    def check_linear(self) -> None:
        """Raise `InputError` unless the steps of a round are linear in its gradients, as `reach` requires."""
        hint = "FedNova's weights require steps that are linear in the gradients"
        for prepared in self._replica.optimizers:
            kind = type(prepared.optimizer)
            if kind is not torch.optim.SGD:
                raise InputError("weights", kind.__name__, "samples, unless the optimizer is SGD", hint)
            if prepared.clip_grad_norm is not None:
                raise InputError("weights", "clip_grad_norm", "samples if gradients are clipped", hint)
            for group in prepared.optimizer.param_groups:
                if group["dampening"] or (group["momentum"] and self._replica.optimizer_state != "reset"):
                    allowed = "samples, unless momentum is reset each round (optimizer_state: reset)"
                    raise InputError("weights", f"momentum {group['momentum']:g}", allowed, hint)

    def reach(self, steps: int) -> float:
        """Return the distance that this round's steps move with a gradient of 1 at rate 1 (see `FedNova`)."""
        group = self._replica.optimizers[0].optimizer.param_groups[0]
        return reach(steps, group["momentum"], group["nesterov"])

    def committed(self, mode: Mode, control: Control, rank: int) -> None:
        """Follow the others: with schedulers that took more steps; after local steps, with the smallest loss scale."""
        if mode != "gradients":
            self.follow(control)
        steps = [said.steps for said in control.members]
        self._replica.schedulers.miss(max(steps) - steps[rank], control.stepping)
        scales = [said.scale for said in control.members if said.scale > 0]
        if mode != "gradients" and self._replica.scaler is not None and scales:
            self._set_scale(self._replica.scaler, min(scales))


def _finite(prepared: Prepared) -> bool:
    gradients = [p.grad for p in prepared.parameters() if p.grad is not None]
    return not gradients or bool(torch.isfinite(nn.utils.get_total_norm(gradients)))
