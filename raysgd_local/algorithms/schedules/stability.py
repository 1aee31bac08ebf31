"""The stability test: whether as many local steps would do as well as synchronous ones, by trying."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.schedules.base import Compared, Observation, Probe
from raysgd_local.serialization import from_plain

Stage = Literal["waiting", "local", "synchronous", "comparing"]

IN_A_ROW = 2
"""So many probes running have to pass."""


@dataclass(frozen=True)
class StabilityState:
    """`rounds` of the present `stage` are done; `passed` probes running have passed. `probe` is what is tried before
    the next round, `why` why the switch is due (empty while it is not), `found` what the newest probe found.
    """

    stage: Stage = "waiting"
    rounds: int = 0
    passed: int = 0
    probe: Probe | None = None
    found: str = ""
    why: str = ""


@dataclass(frozen=True)
class Stability:
    """Switch once local steps have done as well as synchronous ones, in two probes running.

    A probe begins `every` rounds after the one before, and takes the next K = `steps` batches of each worker (None: as
    many as the schedule after the switch takes at first). Each worker takes K local steps on them alone, then all
    average, and the mean's loss is measured on the `held_out` batches that come after. All of that is undone. The same
    K batches are then trained on synchronously, as without a probe, and the loss is measured on the same held-out
    batches: L(local) against L(synchronous), paired batch by batch. The probe passes if

        L(local) ≤ L(synchronous) + max(epsilon·L(synchronous), 2·standard error of the difference).

    Held-out batches are of the training set, and are trained on later. Samples count once; the computing of local steps
    and of looking, and a probe's averaging, are in the `compute_s` and `wire_bytes` of the rounds around it. A probe
    in which the workers change, or the epoch's lists end, tells nothing, and another follows.

    The project's own test. Comparing the loss of the mean with the mean of the workers' losses instead would pass on
    any convex region, and from random weights: the mean of local models is then better than they are, whatever they
    lost against synchronous steps.

    Raises InputError unless every ≥ 1, steps ≥ 1 (and not below the period after the switch: see `Switch`),
    held_out ≥ 2 and 0 < epsilon < 1.

    >>> Stability().passes(Compared(local=0.505, synchronous=0.5, error=0.001))
    True
    >>> Stability().passes(Compared(local=0.515, synchronous=0.5, error=0.001))
    False
    """

    every: int = 100
    steps: int | None = None
    held_out: int = 4
    epsilon: float = 0.02

    def __post_init__(self) -> None:
        validation.whole_number("every", self.every, at_least=1)
        if self.steps is not None:
            validation.whole_number("steps", self.steps, at_least=1)
        validation.whole_number("held_out", self.held_out, at_least=2)
        validation.number("epsilon", self.epsilon, above=0, below=1)

    def passes(self, found: Compared) -> bool:
        """Whether local steps did as well; never where a loss is not finite."""
        return found.local <= found.synchronous + max(self.epsilon * found.synchronous, 2 * found.error)

    def watch(self, state: StabilityState, seen: Observation, tau: int) -> StabilityState:
        """The state after a round of synchronous training; `tau` is the period after the switch."""
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
