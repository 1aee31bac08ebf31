"""A worker's network and disk in virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import torch

from raysgd_local.control.controller.events import CheckpointFailed
from raysgd_local.errors import TransportError
from raysgd_local.simulation.engine.connection import Connection
from raysgd_local.simulation.engine.controller_link import VirtualLink
from raysgd_local.simulation.engine.network import GREETING, Call
from raysgd_local.simulation.engine.world import Process, World
from raysgd_local.transport.contract import Transport
from raysgd_local.transport.wire_volume import (
    all_gather_bytes,
    all_reduce_bytes,
    all_to_all_bytes,
    broadcast_bytes,
    swap_bytes,
)

AwaitEnd = Callable[[], tuple[Call, str]]


class VirtualNetwork:
    """One worker's network. `await_end` waits for the end of a collective; `members` returns the view's members."""

    def __init__(
        self, connection: Connection, await_end: AwaitEnd, members: Callable[[], tuple[str, ...]]
    ) -> None:
        self._connection, self._await_end, self._members = connection, await_end, members

    def allocate(self, numel: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(numel, dtype=dtype)

    def connect(self, view: int, rank: int, world_size: int) -> Transport:
        if not self._connection.join(view, self._members()):
            raise TransportError(f"view {view} was cut")
        transport = VirtualTransport(self._connection, self._await_end, rank, world_size)
        transport.take_part("connect", lambda _: None, None, None, 0)
        return transport

    def cut(self, view: int) -> None:
        self._connection.cut(view)


class VirtualTransport:
    """A member's side of one view. Sums are taken in rank order. Bytes sent are computed, as for a ring."""

    device = torch.device("cpu")

    def __init__(self, connection: Connection, await_end: AwaitEnd, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self._connection, self._await_end, self._sent = connection, await_end, 0
        self._greets = True  # the next gathering is the first of the view

    def take_part(
        self, label: str, combine: Callable[[Sequence[Any]], Any], given: Any, source: int | None, size_bytes: int
    ) -> Any:
        """Call a collective; return its result. Raises `TransportError` if it did not complete for this member."""
        if not self._connection.begin(label, combine, given, source, size_bytes):
            raise TransportError("the view was left")
        call, failure = self._await_end()
        if failure:
            raise TransportError(failure)
        return call.result

    def all_reduce(self, flat: torch.Tensor, ready: Iterable[int] = ()) -> None:
        deque(ready, maxlen=0)
        flat.copy_(self.take_part("reduce", _sum, flat, None, flat.nbytes))
        self._sent += all_reduce_bytes(flat.nbytes, self.world_size)

    def broadcast(self, flat: torch.Tensor, source: int) -> None:
        given = flat.clone() if self.rank == source else None  # the source may change it before the others copy it
        flat.copy_(self.take_part("broadcast", lambda _: None, given, source, flat.nbytes))
        self._sent += broadcast_bytes(flat.nbytes, self.world_size, self.rank, source)

    def all_gather(self, content: torch.Tensor) -> torch.Tensor:
        as_reduced = content.nbytes * self.world_size // 2  # a reduction of so many bytes takes as long
        label, self._greets = GREETING if self._greets else "gather", False
        rows: torch.Tensor = self.take_part(label, _stack, content, None, as_reduced)
        self._sent += all_gather_bytes(content.nbytes, self.world_size)
        return rows.clone()

    def all_to_all(self, rows: torch.Tensor) -> torch.Tensor:
        every: torch.Tensor = self.take_part("all-to-all", _stack, rows, None, rows.nbytes // 2)
        self._sent += all_to_all_bytes(rows.nbytes, self.world_size)
        return every[:, self.rank].clone()

    def swap(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        sizes = [part.nbytes for part in parts]
        sent = swap_bytes(sizes, self.rank)
        rows = self.take_part(
            "swap", _copied, list(parts), None, sent // 2
        )  # takes as long as a reduction of half
        self._sent += sent
        return [rows[peer][self.rank] for peer in range(self.world_size)]

    def wire_bytes(self) -> int:
        return self._sent

    def cut(self) -> None:
        self._connection.leave()

    def close(self) -> None:
        self._connection.leave()


def _sum(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def _copied(rows: Sequence[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
    """Copy all parts: their senders may change them before the receivers copy them."""
    return [[part.clone() for part in row] for row in rows]


def _stack(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(parts))


class VirtualWriter(Executor):
    """A disk that runs each write after a delay, while the worker goes on.

    `pause` and `resume` stop and continue the worker, while it waits at its end until everything is written.
    """

    def __init__(
        self,
        worker: Process,
        world: World,
        link: VirtualLink,
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self._worker, self._world, self._link = worker, world, link
        self._pause, self._resume = pause, resume
        self._pending, self._closing = 0, False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._pending += 1
        self._world.after(self._world.io_s(), self._worker, lambda: self._write(fn, args, kwargs))
        return Future()

    def _write(self, write: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._worker.unwritten:
            self._worker.unwritten = False
            self._link.tell(CheckpointFailed(args[0].name, f"{self._worker.name}: no space left"))
        else:
            write(*args, **kwargs)
        self._pending -= 1
        if self._closing and not self._pending:
            self._resume()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        self._closing = True
        if wait and self._pending and self._worker.alive:
            self._pause()
