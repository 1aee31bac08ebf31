"""The interface of transports: the collectives of one view. One conformance suite tests every implementation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch


class Transport(Protocol):
    """Collectives among the members of one view. All members call the same collectives in the same order.

    Threads: `cut` and `wire_bytes` may be called from any thread at any time, everything else from one thread at a
    time. Errors: a collective that fails raises `TransportError`, after this member has closed its own side, so that
    the others fail within milliseconds too. A transport that was closed or cut can't be used again.
    """

    rank: int  # of this member in the view, from 0
    world_size: int  # members of the view

    @property
    def device(self) -> torch.device:
        """The device on which tensors passed to the collectives must be."""
        ...

    def all_reduce(self, flat: torch.Tensor, ready: Iterable[int] = ()) -> None:
        """Sum `flat` (contiguous, 1-D, float32 or float64) over all members, in place.

        The result is bit-identical on all members. To overlap writing and sending, `flat` may be written while it
        is sent: each item drawn from `ready` writes the next piece and is the number of elements written so far.
        The items must be the same on all members. The rest, after the last item, must be written by the time that
        `ready` is exhausted.
        """
        ...

    def broadcast(self, flat: torch.Tensor, source: int) -> None:
        """Copy `flat` (contiguous, 1-D, any dtype) of rank `source` into `flat` on every member."""
        ...

    def all_gather(self, content: torch.Tensor) -> torch.Tensor:
        """Return every member's `content` (contiguous, (n,), uint8, n equal on all) as (world_size, n)."""
        ...

    def all_to_all(self, rows: torch.Tensor) -> torch.Tensor:
        """Send row r of `rows` (contiguous, (world_size, n), uint8) to rank r. Row s of the result is from rank s."""
        ...

    def swap(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Send `parts[r]` (contiguous, 1-D, uint8, possibly empty) to rank r, and return each rank's part for us.

        Two members must send each other equally many bytes. Between members with empty parts (next to) nothing is
        sent: this is how gossip and block averaging save traffic.
        """
        ...

    def wire_bytes(self) -> int:
        """Return the bytes that this member has sent to others in this view since it connected (never decreases)."""
        ...

    def cut(self) -> None:
        """Make a collective that runs in another thread fail now. Safe from any thread, at any time."""
        ...

    def close(self) -> None:
        """Leave the view. Members that still wait for this one fail. Idempotent."""
        ...


class Network(Protocol):
    """Connects members into views. One per process and run."""

    def allocate(self, numel: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return `numel` zeros in memory for which this network's collectives are fastest. Other tensors work too.

        Call it before `connect`, for the few vectors that are used throughout the run: the memory is never freed.
        """
        ...

    def connect(self, view: int, rank: int, world_size: int) -> Transport:
        """Join view number `view` as rank `rank`. Blocks until all `world_size` members have joined.

        Raises `TransportError` if the formation time-out expires or `cut(view)` is called meanwhile.
        """
        ...

    def cut(self, view: int) -> None:
        """Abandon view number `view` on this member, whether it is being connected or in use. Any thread may call."""
        ...
