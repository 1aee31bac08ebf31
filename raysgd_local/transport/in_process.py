"""A transport between threads of one process: for tests, the single-worker context, and simulation."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from raysgd_local.errors import TransportError
from raysgd_local.transport.contract import Transport
from raysgd_local.transport.solo import SoloTransport
from raysgd_local.transport.wire_volume import (
    all_gather_bytes,
    all_reduce_bytes,
    all_to_all_bytes,
    broadcast_bytes,
    swap_bytes,
)

Combine = Callable[[list[Any]], Any]


class InProcessNetwork:
    """Connect threads of this process into views. All members of a run share one object.

    Since all members are in this process, `cut(view)` abandons the view for all of them. The number of a view that
    was cut, or whose formation failed, can't be used again.
    """

    def __init__(self, formation_timeout_s: float = 10.0, collective_timeout_s: float = 300.0) -> None:
        self._formation_timeout_s, self._collective_timeout_s = formation_timeout_s, collective_timeout_s
        self._lock = threading.Lock()
        self._meetings: dict[int, _Meeting] = {}
        self._solos: dict[int, SoloTransport] = {}

    def allocate(self, numel: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(numel, dtype=dtype)

    def connect(self, view: int, rank: int, world_size: int) -> Transport:
        if world_size == 1:
            with self._lock:
                return self._solos.setdefault(view, SoloTransport())
        with self._lock:
            meeting = self._meetings.setdefault(view, _Meeting(world_size))
        meeting.exchange(rank, torch.empty(0), lambda parts: parts[0], self._formation_timeout_s, "formation")
        return InProcessTransport(meeting, rank, self._collective_timeout_s)

    def cut(self, view: int) -> None:
        with self._lock:
            if view in self._solos:
                return self._solos[view].cut()
            meeting = self._meetings.setdefault(view, _Meeting(0))
        meeting.end(f"view {view} was cut")
        return None


class InProcessTransport:
    """One member's side of a view. The last member to arrive computes the sum, in rank order.

    Nothing crosses a wire here: `wire_bytes` counts the bytes that a ring all-reduce would have sent.
    """

    device = torch.device("cpu")

    def __init__(self, meeting: _Meeting, rank: int, timeout_s: float) -> None:
        self.rank, self.world_size = rank, meeting.world_size
        self._meeting, self._timeout_s, self._sent = meeting, timeout_s, 0

    def all_reduce(self, flat: torch.Tensor, ready: Iterable[int] = ()) -> None:
        deque(ready, maxlen=0)
        flat.copy_(self._meeting.exchange(self.rank, flat, _sum, self._timeout_s, "all-reduce"))
        self._sent += all_reduce_bytes(flat.nbytes, self.world_size)

    def broadcast(self, flat: torch.Tensor, source: int) -> None:
        def pick(parts: list[torch.Tensor]) -> torch.Tensor:
            return parts[source].clone()

        flat.copy_(self._meeting.exchange(self.rank, flat, pick, self._timeout_s, "broadcast"))
        self._sent += broadcast_bytes(flat.nbytes, self.world_size, self.rank, source)

    def all_gather(self, content: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = self._meeting.exchange(self.rank, content, torch.stack, self._timeout_s, "all-gather")
        self._sent += all_gather_bytes(content.nbytes, self.world_size)
        return rows.clone()

    def all_to_all(self, rows: torch.Tensor) -> torch.Tensor:
        every: torch.Tensor = self._meeting.exchange(self.rank, rows, torch.stack, self._timeout_s, "all-to-all")
        self._sent += all_to_all_bytes(rows.nbytes, self.world_size)
        return every[:, self.rank].clone()

    def swap(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        rows = self._meeting.exchange(self.rank, list(parts), _deliver, self._timeout_s, "swap")
        self._sent += swap_bytes([part.nbytes for part in parts], self.rank)
        return [rows[peer][self.rank].clone() for peer in range(self.world_size)]

    def wire_bytes(self) -> int:
        return self._sent

    def cut(self) -> None:
        self._meeting.end("the view was cut")

    def close(self) -> None:
        self._meeting.end(f"rank {self.rank} closed the view")


def _deliver(rows: list[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
    """Copy the parts: a sender may change its tensors before the others have taken them."""
    return [[part.clone() for part in row] for row in rows]


def _sum(parts: list[torch.Tensor]) -> torch.Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


class _Meeting:
    """A reusable barrier of one view: members hand in tensors, wait for the rest, and take the combined result."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self._changed = threading.Condition()
        self._parts: dict[int, Any] = {}
        self._result: Any = None
        self._done, self._untaken = 0, 0
        self._ended = ""

    def end(self, why: str) -> None:
        with self._changed:
            self._ended = self._ended or why
            self._parts.clear()
            self._changed.notify_all()

    def exchange(self, rank: int, part: Any, combine: Combine, timeout_s: float, what: str) -> Any:
        with self._changed:
            self._check()
            number = self._done
            self._parts[rank] = part
            if len(self._parts) == self.world_size:
                return self._complete(combine)
            self._changed.wait_for(lambda: self._done > number or bool(self._ended), timeout_s)
            if self._done == number:
                missing = self.world_size - len(self._parts)
                self.end(f"{what}: {missing} of {self.world_size} members missing after {timeout_s} s")
                self._check()
            return self._take()

    def _take(self) -> Any:
        self._untaken -= 1
        result = self._result
        if not self._untaken:  # an unused view must not keep a model's worth of memory
            self._result = None
        return result

    def _complete(self, combine: Combine) -> Any:
        try:
            self._result = combine([self._parts[rank] for rank in range(self.world_size)])
        except (RuntimeError, KeyError) as error:
            self.end(f"members disagree on a collective: {error}")
            self._check()
        self._parts.clear()
        self._done += 1
        self._untaken = self.world_size
        self._changed.notify_all()
        return self._take()

    def _check(self) -> None:
        if self._ended:
            raise TransportError(self._ended)
