"""Blocks: members that average among themselves often, and with all others now and then."""

from __future__ import annotations

from dataclasses import dataclass

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.averaging.base import Averaging
from raysgd_local.errors import InputError


@dataclass(frozen=True)
class Blocks(Averaging):
    """Who is in a block with whom, for the schedule `hierarchical`, which says when blocks and when all average.

    A block is a node, or the nodes of one of the lists in `named`; or, with `count`, members in so many blocks of
    nearly equal size, in rank order. In between a block's members become its mean, weighted by the round's samples;
    at a global averaging a block counts by its samples since the one before.

    Raises InputError for both, and for a count below 1.

    >>> Blocks().blocks(("a", "b", "a")), Blocks(count=2).blocks(("a", "a", "a"))
    ((0, 1, 0), (0, 0, 1))
    """

    count: int | None = None
    named: tuple[tuple[str, ...], ...] = ()
    scope = "block"

    def __post_init__(self) -> None:
        if self.count is not None:
            validation.whole_number("count", self.count, at_least=1)
            if self.named:
                raise InputError("named", self.named, "count or named, not both")

    def blocks(self, nodes: tuple[str, ...]) -> tuple[int, ...]:
        if self.count is not None:
            return tuple(rank * self.count // len(nodes) for rank in range(len(nodes)))
        names = {node: f"block {number}" for number, block in enumerate(self.named) for node in block}
        found: dict[str, int] = {}
        return tuple(found.setdefault(names.get(node, f"node {node}"), len(found)) for node in nodes)
