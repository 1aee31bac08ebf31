"""The interface of averagings: with whom a member averages, and how far it moves towards the result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Coupling:
    """Elastic coupling between the members' parameters x and the anchor. With their weighted mean x̄:

        x ← x − pull·(x − anchor),  anchor ← anchor + push·(x̄ − anchor)

    computed from the old values of both. Stable for pull + push < 2.
    """

    pull: float  # share of the difference by which a member moves to the anchor
    push: float  # share of the difference by which the anchor moves to the mean


class Averaging:
    """Says with whom members average, and how far they move. A frozen dataclass, the same on all members.

    By default all members become the mean. With a coupling the anchor is the method's model: it is replicated,
    evaluated, written into checkpoints, and given to joiners. The members' own parameters are local: each is in the
    member's own part of a checkpoint, and lost when the member dies.
    """

    fraction = 1.0
    """Share of the members that take steps in a round; the others only receive the result."""

    def coupling(self, workers: int) -> Coupling | None:  # noqa: ARG002
        """Return the elastic coupling of `workers` members; None if all become the mean."""
        return None

    scope = "own"
    """Value of `scope` in `rounds.csv` for rounds in which not all members average with all."""

    def neighbours(self, rank: int, round: int, workers: int) -> frozenset[int] | None:  # noqa: ARG002
        """Return the ranks with which `rank` averages in a gossip round; None if this is no gossip. Symmetric."""
        return None

    def blocks(self, nodes: tuple[str, ...]) -> tuple[int, ...]:
        """Return the block number of each rank, given its node. By default each member is a block of its own."""
        return tuple(range(len(nodes)))

    @property
    def gossips(self) -> bool:
        """Whether members average only with their neighbours."""
        return self.neighbours(0, 0, 1) is not None
