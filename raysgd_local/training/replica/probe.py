"""Probes in the shell: save all state that a probe changes, measure losses, and restore the state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

from raysgd_local.control.control_slots import HeldOut
from raysgd_local.control.member import events as m
from raysgd_local.records import replace_fields
from raysgd_local.state.replica_state import ReplicaState
from raysgd_local.training.exchange.plain import Reduction
from raysgd_local.training.loss_meter import LossMeter
from raysgd_local.training.replica.replica import Replica
from raysgd_local.training.replica.rng import generators, set_generators
from raysgd_local.training.replica.stepping import Stepper


@dataclass(frozen=True)
class Loss:
    """The loss of one held-out batch."""

    value: float  # mean over its samples
    samples: int


class Probing:
    """Runs probes. Training continues bit for bit as if there had been none: models, buffers, optimizers, loss scale,
    random generators and registered user state are restored.
    """

    def __init__(self, replica: Replica, stepper: Stepper, state: ReplicaState, loss: LossMeter) -> None:
        self._replica, self._stepper, self._state, self._loss = replica, stepper, state, loss
        self._marked: dict[str, Any] = {}
        self._losses: dict[bool, list[Loss]] = {True: [], False: []}  # after local steps, after synchronous ones
        self._local = False  # the present branch takes local steps
        self.times = 0  # how often state was restored

    def obey(self, command: m.Mark | m.Look | m.ShowMean | m.Undo, reducing: Reduction) -> None:
        """Carry out a command of a probe (the averaging in it excepted)."""
        match command:
            case m.Mark(local):
                self.mark(local)
            case m.Look(samples):
                self.look(samples)
            case m.ShowMean(control):
                reducing.show(control)
                self._loss.reset()
            case m.Undo():
                self.undo()
            case _:
                assert_never(command)

    def mark(self, local: bool) -> None:
        """Save the state, to which `undo` returns."""
        self._stepper.drop()
        self._loss.reset()
        self._local, self._losses[False] = local, []
        if local:
            self._losses[True] = []
        self._marked = {
            "state": self._state.snapshot(),
            "local": self._replica.local_state(),
            "stepper": self._stepper.good_steps,
            "generators": generators(),
        }

    def look(self, samples: int) -> None:
        """Record the loss of a held-out batch, and drop its gradients."""
        self._losses[self._local].append(Loss(self._loss.value() / max(samples, 1), samples))
        self._loss.reset()
        self._stepper.drop()

    def undo(self) -> None:
        """Restore the state saved by `mark`."""
        self._state.restore(self._marked["state"])
        self._replica.load_local_state(self._marked["local"], joining=False)
        self._stepper.good_steps = self._marked["stepper"]
        self._stepper.drop()
        set_generators(self._marked["generators"])
        self._marked = {}
        self._loss.reset()
        self.times += 1

    def told(self, said: HeldOut) -> HeldOut:
        """Fill in the losses that this member measured, if it is to report any."""
        if not said.batches:
            return said
        pairs = list(zip(self._losses[True], self._losses[False], strict=True))
        gaps = [(local.value - synchronous.value) * synchronous.samples for local, synchronous in pairs]
        return replace_fields(
            said,
            loss_sum=sum(synchronous.value * synchronous.samples for _, synchronous in pairs),
            gap_sum=sum(gaps),
            gap_squares=sum(gap * gap for gap in gaps),
        )
