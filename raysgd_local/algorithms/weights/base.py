"""What weights are: how much a member counts, said before the exchange, and what becomes of the mean step after it."""

from __future__ import annotations

from collections.abc import Sequence


class Weights:
    """How members are weighed. A frozen dataclass, the same on all members.

    `plain` says that a member counts by its samples and the mean step is taken as it is; other weights override both
    methods. They need an anchor, plain ones do not.
    """

    plain = False

    def weight(self, samples: int, reach: float) -> float:
        """How much a member counts that took a round's steps over `samples`; at least 0, and 0 for no samples.

        `reach` is how far these steps would have gone with a gradient of 1 at rate 1, in steps (‖a‖₁ of FedNova).
        """
        raise NotImplementedError

    def stretch(self, samples: Sequence[int], weights: Sequence[float]) -> float:
        """What the mean step is multiplied by, from all members' samples and weights: reduced values only."""
        raise NotImplementedError
