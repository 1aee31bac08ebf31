"""A member under test: obeys orders in one thread and takes `cut` in another. The same for threads and processes."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from raysgd_local.errors import TransportError
from raysgd_local.transport.gloo.sockets import _listening

torch.set_num_threads(1)


def content(seed: int, numel: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(numel, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class MemberAgent:
    """Answers are `(order number, seconds it took, value or TransportError)`."""

    def __init__(self, network: Any, answer: Callable[[Any], None], device: str = "cpu") -> None:
        self.network, self.answer, self.device = network, answer, device
        self.transports: dict[int, Any] = {}
        self.vector: torch.Tensor | None = None
        self.orders: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self.work, daemon=True).start()

    def take(self, number: int, name: str, args: tuple[Any, ...]) -> None:
        """Called from the control thread."""
        if name in ("cut", "cut_transport"):
            self.obey(number, name, args)
        else:
            self.orders.put((number, name, args))

    def work(self) -> None:
        while True:
            self.obey(*self.orders.get())

    def obey(self, number: int, name: str, args: tuple[Any, ...]) -> None:
        started = time.monotonic()
        try:
            value = getattr(self, name)(*args)
        except TransportError as error:
            value = error
        except Exception as error:
            value = AssertionError(f"{name}: {error!r}")
        self.answer((number, time.monotonic() - started, value))

    def connect(self, view: int, rank: int, world_size: int) -> int:
        self.transports[view] = self.network.connect(view, rank, world_size)
        return self.transports[view].world_size

    def all_reduce(self, view: int, seed: int, numel: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        flat = content(seed, numel, dtype).to(self.device)
        self.transports[view].all_reduce(flat)
        return flat.cpu().clone()

    def all_reduce_aside(self, view: int, seed: int, numel: int, cut: bool = False) -> torch.Tensor:
        """In a thread of its own, while this one computes, and perhaps cuts it."""
        flat, found = content(seed, numel, torch.float32).to(self.device), []

        def run() -> None:
            try:
                self.transports[view].all_reduce(flat)
            except TransportError as error:
                found.append(error)

        aside = threading.Thread(target=run)
        aside.start()
        busy = torch.ones(50, 50)
        while aside.is_alive():
            busy = (busy @ busy).clamp(max=1.0)
            if cut:
                self.transports[view].cut()
        aside.join()
        if found:
            raise found[0]
        return flat.cpu()

    def all_reduce_in_parts(self, view: int, seed: int, ends: list[int], delay_s: float) -> torch.Tensor:
        """Written while it is reduced, with a pause before each part."""
        own = content(seed, ends[-1] + 3, torch.float32).to(self.device)
        flat = torch.full_like(own, float("nan"))
        flat[ends[-1] :] = own[ends[-1] :]

        def write() -> Iterator[int]:
            begin = 0
            for end in ends:
                time.sleep(delay_s)
                flat[begin:end] = own[begin:end]
                begin = end
                yield end

        self.transports[view].all_reduce(flat, write())
        return flat.cpu()

    def all_reduce_unwritten(self, view: int, numel: int, error: str) -> str:
        """The error of a vector that can't be written after its first part, if `error` says one."""
        flat = torch.ones(numel, device=self.device)

        def write() -> Iterator[int]:
            yield numel // 2
            if error:
                raise RuntimeError(error)

        try:
            self.transports[view].all_reduce(flat, write())
        except RuntimeError as found:
            self.transports[view].close()  # as a process does that ends
            return str(found)
        return ""

    def allocate(self, numel: int, dtype: torch.dtype) -> None:
        self.vector = self.network.allocate(numel, dtype)

    def all_reduce_allocated(self, view: int, seed: int, start: int = 0) -> torch.Tensor:
        flat = self.vector[start:]
        flat.copy_(content(seed, flat.numel(), flat.dtype))
        self.transports[view].all_reduce(flat)
        return flat.cpu().clone()

    def broadcast(self, view: int, mine: torch.Tensor, source: int) -> torch.Tensor:
        here = mine.to(self.device)
        self.transports[view].broadcast(here, source)
        return here.cpu()

    def all_gather(self, view: int, content: torch.Tensor) -> torch.Tensor:
        return self.transports[view].all_gather(content.to(self.device)).cpu()

    def all_to_all(self, view: int, rows: torch.Tensor) -> torch.Tensor:
        return self.transports[view].all_to_all(rows.to(self.device)).cpu()

    def swap(self, view: int, parts: list[torch.Tensor]) -> list[torch.Tensor]:
        return [part.cpu() for part in self.transports[view].swap([part.to(self.device) for part in parts])]

    def wire_bytes(self, view: int) -> int:
        return self.transports[view].wire_bytes()

    def socket_bytes(self, view: int) -> int:
        return self.transports[view]._wires.sent()

    def listeners(self) -> list[tuple[str, int]]:
        return [tuple(address) for address in _listening().values()]

    def close(self, view: int) -> None:
        self.transports[view].close()

    def forget(self) -> None:
        for transport in self.transports.values():
            transport.close()
        self.transports.clear()

    def cut(self, view: int) -> None:
        self.network.cut(view)

    def cut_transport(self, view: int) -> None:
        self.transports[view].cut()

    def resources(self) -> tuple[int, int]:
        """Open file descriptors and threads of this process."""
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def process_member(port: int, address: str, pipe: Any, device: str, options: dict[str, Any]) -> None:
    """The main function of a member that is a process."""
    from datetime import timedelta

    import torch.distributed as dist

    from raysgd_local.transport.process_group import ProcessGroupNetwork

    store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=10))
    network = ProcessGroupNetwork(store, address, "run/1", device=torch.device(device), **options)
    agent = MemberAgent(network, pipe.send, device)
    pipe.send("ready")
    while True:
        try:
            agent.take(*pipe.recv())
        except EOFError:
            os._exit(0)
