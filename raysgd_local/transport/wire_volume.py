"""How many bytes a collective moves, for transports that can't measure it at a socket."""

from __future__ import annotations

from collections.abc import Sequence


def all_reduce_bytes(nbytes: int, world_size: int) -> int:
    """What one member of a ring sends to sum `nbytes` over `world_size` members (reduce-scatter, all-gather).

    >>> all_reduce_bytes(1000, 4)
    1500
    """
    return 2 * (world_size - 1) * nbytes // world_size


def all_gather_bytes(nbytes: int, world_size: int) -> int:
    """What one member of a ring sends so that all have everybody's `nbytes`.

    >>> all_gather_bytes(1000, 4)
    3000
    """
    return (world_size - 1) * nbytes


def all_to_all_bytes(nbytes: int, world_size: int) -> int:
    """What one member sends of `nbytes`, of which it keeps its own part.

    >>> all_to_all_bytes(1000, 4)
    750
    """
    return (world_size - 1) * nbytes // world_size


def swap_bytes(sizes: Sequence[int], rank: int) -> int:
    """What rank `rank` sends that has `sizes[r]` for rank r.

    >>> swap_bytes([10, 7, 5], rank=1)
    15
    """
    return sum(sizes) - sizes[rank]


def broadcast_bytes(nbytes: int, world_size: int, rank: int, source: int) -> int:
    """What rank `rank` sends along a chain that starts at `source`: all of it, but for the chain's end.

    >>> [broadcast_bytes(10, 3, rank, source=1) for rank in range(3)]
    [0, 10, 10]
    """
    return 0 if (rank - source) % world_size == world_size - 1 else nbytes
