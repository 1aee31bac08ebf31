"""Formulas for the bytes that a collective sends, for transports that can't measure them at a socket."""

from __future__ import annotations

from collections.abc import Sequence


def all_reduce_bytes(nbytes: int, world_size: int) -> int:
    """Bytes that one member sends in a ring all-reduce (reduce-scatter, then all-gather) of `nbytes`.

    >>> all_reduce_bytes(1000, 4)
    1500
    """
    return 2 * (world_size - 1) * nbytes // world_size


def all_gather_bytes(nbytes: int, world_size: int) -> int:
    """Bytes that one member sends in a ring all-gather of `nbytes` per member.

    >>> all_gather_bytes(1000, 4)
    3000
    """
    return (world_size - 1) * nbytes


def all_to_all_bytes(nbytes: int, world_size: int) -> int:
    """Bytes that one member sends in an all-to-all of `nbytes`: all but the part that it keeps.

    >>> all_to_all_bytes(1000, 4)
    750
    """
    return (world_size - 1) * nbytes // world_size


def swap_bytes(sizes: Sequence[int], rank: int) -> int:
    """Bytes that rank `rank` sends in a swap, with `sizes[r]` bytes for rank r.

    >>> swap_bytes([10, 7, 5], rank=1)
    15
    """
    return sum(sizes) - sizes[rank]


def broadcast_bytes(nbytes: int, world_size: int, rank: int, source: int) -> int:
    """Bytes that rank `rank` sends in a broadcast along a chain that starts at `source`: `nbytes`, at its end none.

    >>> [broadcast_bytes(10, 3, rank, source=1) for rank in range(3)]
    [0, 10, 10]
    """
    return 0 if (rank - source) % world_size == world_size - 1 else nbytes
