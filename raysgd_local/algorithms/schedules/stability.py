"""The stability test: compare local steps with synchronous ones in probes, to decide when to switch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.schedules.base import Compared, Observation, Probe
from raysgd_local.serialization import from_plain

Stage = Literal["waiting", "local", "synchronous", "comparing"]

IN_A_ROW = 2
"""Number of consecutive probes that have to pass."""


@dataclass(frozen=True)
class StabilityState:
    """Progress of the stability test: the stage of the present probe, and the results so far."""

    stage: Stage = "waiting"  # `waiting` between probes, else the part of a probe that is running
    rounds: int = 0  # rounds done in the present stage
    passed: int = 0  # consecutive probes passed so far
    probe: Probe | None = None  # to be tried before the next round
    found: str = ""  # result of the newest probe, in words
    why: str = ""  # reason for the switch, in words; empty until it is due


@dataclass(frozen=True)
class Stability:
    """Switch once local steps have done as well as synchronous ones in two consecutive probes.

    A probe uses the next K = `steps` batches of each worker. First each worker takes K local steps on its own, all
    average, and the mean model's loss is measured on the `held_out` batches that follow. All of that is undone. Then
    the workers train on the same K batches synchronously, as they would without a probe, and the loss is measured on
    the same held-out batches. The two losses are compared batch by batch. The probe passes if

        L(local) ≤ L(synchronous) + max(epsilon·L(synchronous), 2·standard error of the difference).

    Held-out batches belong to the training set, and are trained on later. Each sample counts once. The time and bytes
    of a probe are part of the `compute_s` and `wire_bytes` of the rounds around it. A probe in which the workers
    change, or the epoch's data run out, is inconclusive, and another follows.

    The test is the project's own. Comparing the mean model's loss with the mean of the workers' losses instead would
    pass in any convex region, and from random weights: there the mean model is better than the local ones, however
    much they lost against synchronous steps.

    Raises InputError unless every ≥ 1, steps ≥ 1 (and not below the period after the switch: see `Switch`),
    held_out ≥ 2 and 0 < epsilon < 1.

    >>> Stability().passes(Compared(local=0.505, synchronous=0.5, error=0.001))
    True
    >>> Stability().passes(Compared(local=0.515, synchronous=0.5, error=0.001))
    False
    """

    every: int = 100  # rounds from the end of one probe to the beginning of the next
    steps: int | None = None  # K; None: the first period of the schedule after the switch
    held_out: int = 4  # batches of each worker on which losses are compared
    epsilon: float = 0.02  # tolerated relative difference of the losses

    def __post_init__(self) -> None:
        validation.whole_number("every", self.every, at_least=1)
        if self.steps is not None:
            validation.whole_number("steps", self.steps, at_least=1)
        validation.whole_number("held_out", self.held_out, at_least=2)
        validation.number("epsilon", self.epsilon, above=0, below=1)

    def passes(self, found: Compared) -> bool:
        """Whether local steps did as well as synchronous ones. False if a loss is not finite."""
        return found.local <= found.synchronous + max(self.epsilon * found.synchronous, 2 * found.error)

    def watch(self, state: StabilityState, seen: Observation, tau: int) -> StabilityState:
        """Return the state after a round of synchronous training; `tau` is the period after the switch."""
        steps, rounds = self.steps or tau, state.rounds + 1
        state = replace(state, rounds=rounds, probe=None)
        match state.stage:
            case "waiting" if rounds >= self.every and seen.rounds_left >= steps + self.held_out:
                return replace(state, stage="local", rounds=0, probe=Probe(steps, self.held_out))
            case "local" | "synchronous" if rounds >= steps:
                return replace(state, stage="comparing", rounds=0, probe=Probe(0, self.held_out))
            case "local":
                return replace(state, stage="synchronous")
            case "comparing":
                return self._judged(state, seen)
            case _:
                return state

    def _judged(self, state: StabilityState, seen: Observation) -> StabilityState:
        found = seen.compared
        state = replace(state, stage="waiting", rounds=0)
        if found is None:
            return replace(state, found=f"the probe that ended with round {seen.round} tells nothing")
        passed = state.passed + 1 if self.passes(found) else 0
        told = f"loss {found.local:.4g} after local steps, {found.synchronous:.4g} ± {found.error:.2g} after joint ones"
        why = f"{told}, {IN_A_ROW} probes running as good" if passed >= IN_A_ROW else ""
        verdict = f"as good, {passed} running" if passed else "worse"
        return replace(state, passed=passed, found=f"{told}: {verdict} (round {seen.round})", why=why)

    def restore(self, plain: dict[str, Any]) -> StabilityState:
        return from_plain(StabilityState, plain)
