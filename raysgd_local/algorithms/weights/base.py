"""The interface of weights: each member's weight, before an averaging, and the mean step's factor, after it."""

from __future__ import annotations

from collections.abc import Sequence


class Weights:
    """Computes the members' weights in the mean. A frozen dataclass, the same on all members."""

    plain = False
    """Whether weights are the numbers of samples and the mean step is not scaled. Others need an anchor."""

    def weight(self, samples: int, reach: float) -> float:
        """Return the weight of a member that trained on `samples` in a round: at least 0, and 0 without samples.

        `reach`: the distance that its steps would have moved with a gradient of 1 at rate 1 (‖a‖₁ in FedNova).
        """
        raise NotImplementedError

    def stretch(self, samples: Sequence[int], weights: Sequence[float]) -> float:
        """Return the factor on the mean step, from all members' samples and weights (reduced, so equal on all)."""
        raise NotImplementedError
