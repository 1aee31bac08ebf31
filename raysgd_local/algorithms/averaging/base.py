"""What averaging is: how far a member goes to the others, and they to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Coupling:
    """Members keep parameters x of their own, next to the anchor. From old values, with x̄ their weighted mean:

        x ← x − pull·(x − anchor),  anchor ← anchor + push·(x̄ − anchor)

    Stable for pull + push < 2.
    """

    pull: float
    push: float


class Averaging:
    """With whom, and how far. A frozen dataclass, the same on all members; by default all become the mean.

    The anchor is replicated, and is the method's model: it is evaluated, written into checkpoints, and what joiners
    start from. A member's x is local: it is in the member's own part of a checkpoint, and gone when it dies.
    """

    fraction = 1.0
    """Which share of the members takes part in a round; the others take its result, but no steps."""

    def coupling(self, workers: int) -> Coupling | None:  # noqa: ARG002
        """The coupling of `workers` members; None where all become the mean."""
        return None

    scope = "own"
    """What a round that is not over all members is over, for the tables."""

    def neighbours(self, rank: int, round: int, workers: int) -> frozenset[int] | None:  # noqa: ARG002
        """With whom `rank` averages in a round; None where this is no gossip. Neighbours are so mutually."""
        return None

    def blocks(self, nodes: tuple[str, ...]) -> tuple[int, ...]:
        """By rank the number of its block, from the nodes that members are on; by default each is one of its own."""
        return tuple(range(len(nodes)))

    @property
    def gossips(self) -> bool:
        """Whether members average with their neighbours only."""
        return self.neighbours(0, 0, 1) is not None
