"""Blocks: groups of members that average among themselves often, and with all others less often."""

from __future__ import annotations

from dataclasses import dataclass

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.averaging.base import Averaging
from raysgd_local.errors import InputError


@dataclass(frozen=True)
class Blocks(Averaging):
    """Form the blocks for the schedule `Hierarchical`, which decides when blocks average and when all members do.

    By default the members on one node are a block. At a block averaging its members become their mean, weighted by
    the round's samples. At a global averaging a block counts by its samples since the previous global one.

    Raises InputError if both options are given, and for a count below 1.

    >>> Blocks().blocks(("a", "b", "a")), Blocks(count=2).blocks(("a", "a", "a"))
    ((0, 1, 0), (0, 0, 1))
    """

    count: int | None = None  # form this many blocks of nearly equal size, in rank order
    named: tuple[tuple[str, ...], ...] = ()  # join the nodes of each list into a block
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
