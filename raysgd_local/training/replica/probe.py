"""A probe's side of the shell: all that the loop changes is marked, and undone; its loss is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

from raysgd_local.control.control_slots import HeldOut
from raysgd_local.control.member import events as m
from raysgd_local.records import replace
from raysgd_local.state.replica_state import ReplicaState
from raysgd_local.training.exchange.plain import Reduction
from raysgd_local.training.loss_meter import LossMeter
from raysgd_local.training.replica.replica import Replica
from raysgd_local.training.replica.rng import generators, set_generators
from raysgd_local.training.replica.stepping import Stepper


@dataclass(frozen=True)
class Loss:
    """Of one held-out batch: the mean over its samples."""

    value: float
    samples: int


class Probing:
    """Models, buffers, optimizers, loss scale, random generators and what the user registered are as before a probe
    after it: bit by bit, so that training goes on as if there had been none. `times` counts how often that was done.
    """

    def __init__(self, replica: Replica, stepper: Stepper, state: ReplicaState, loss: LossMeter) -> None:
        self._replica, self._stepper, self._state, self._loss = replica, stepper, state, loss
        self._marked: dict[str, Any] = {}
        self._losses: dict[bool, list[Loss]] = {True: [], False: []}  # after local steps, after synchronous ones
        self._local = False
        self.times = 0

    def obey(self, command: m.Mark | m.Look | m.ShowMean | m.Undo, reducing: Reduction) -> None:
        """What the member says of a probe, but for the averaging in it."""
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
        """What comes from here on is undone."""
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
        """The loss is told; the gradients that came with it are dropped."""
        self._losses[self._local].append(Loss(self._loss.value() / max(samples, 1), samples))
        self._loss.reset()
        self._stepper.drop()

    def undo(self) -> None:
        """Back to where it was marked."""
        self._state.restore(self._marked["state"])
        self._replica.load_local_state(self._marked["local"], joining=False)
        self._stepper.good_steps = self._marked["stepper"]
        self._stepper.drop()
        set_generators(self._marked["generators"])
        self._marked = {}
        self._loss.reset()
        self.times += 1

    def told(self, said: HeldOut) -> HeldOut:
        """With the losses of as many batches as this member has to say something of."""
        if not said.batches:
            return said
        pairs = list(zip(self._losses[True], self._losses[False], strict=True))
        gaps = [(local.value - synchronous.value) * synchronous.samples for local, synchronous in pairs]
        return replace(
            said,
            loss_sum=sum(synchronous.value * synchronous.samples for _, synchronous in pairs),
            gap_sum=sum(gaps),
            gap_squares=sum(gap * gap for gap in gaps),
        )
