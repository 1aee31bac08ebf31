"""What a transport is: the collectives of one view. One conformance suite judges every implementation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch


class Transport(Protocol):
    """Collectives among the members of one view, in rank order.

    Every method but `cut` is called from one thread at a time, and `wire_bytes` from any. Any failure raises
    `TransportError`, after the member has closed its own side, so that the others fail within milliseconds too. A
    closed or cut transport stays so.
    """

    rank: int
    world_size: int

    @property
    def device(self) -> torch.device:
        """Where the tensors handed to the collectives must live."""
        ...

    def all_reduce(self, flat: torch.Tensor, ready: Iterable[int] = ()) -> None:
        """Sum `flat` (contiguous, 1-D, float32 or float64) over all members, in place; the result is
        bit-identical on all of them.

        `flat` may still be in the making: drawing from `ready` writes it and says up to which element it is
        written, with the same numbers on all members. What `ready` leaves out at the end is written already.
        """
        ...

    def broadcast(self, flat: torch.Tensor, source: int) -> None:
        """Fill `flat` (contiguous, 1-D, any dtype) on every member with what rank `source` has in it."""
        ...

    def all_gather(self, content: torch.Tensor) -> torch.Tensor:
        """Every member's `content` (contiguous, 1-D, uint8, as long on all members), as rows in rank order."""
        ...

    def all_to_all(self, rows: torch.Tensor) -> torch.Tensor:
        """Give row r of `rows` (contiguous, (world_size, n), uint8) to rank r; row s of the result is from rank s."""
        ...

    def swap(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Give `parts[r]` (contiguous, 1-D, uint8, maybe empty) to rank r, and get as much from it.

        Two members give each other equally much; who gives each other nothing sends each other (next to) nothing.
        """
        ...

    def wire_bytes(self) -> int:
        """Bytes this member has sent to others in this view since it was connected (never falls)."""
        ...

    def cut(self) -> None:
        """Make a collective that is running in another thread fail now. Safe from any thread, at any time."""
        ...

    def close(self) -> None:
        """Leave the view. Others that still wait for this member fail. Idempotent."""
        ...


class Network(Protocol):
    """Connects members into a view; one per process and run."""

    def allocate(self, numel: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A vector of zeros where this network's collectives are fastest. Any other tensor works too.

        Call it before `connect`, for the few vectors that are used all through the run.
        """
        ...

    def connect(self, view: int, rank: int, world_size: int) -> Transport:
        """Join view `view`. Blocks until all `world_size` members are there.

        Raises `TransportError` when the formation time-out passes or `cut(view)` is called meanwhile.
        """
        ...

    def cut(self, view: int) -> None:
        """Abandon view `view` on this member, whether it is being connected or in use. Any thread."""
        ...
