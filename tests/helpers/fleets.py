"""Fleets of members to give orders to, one kind a transport."""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from member_agent import MemberAgent, process_member

from raysgd_local.errors import TransportError
from raysgd_local.transport.in_process import InProcessNetwork

FORMATION_TIMEOUT_S = 2.5
LIMIT_S = 60.0
OPTIONS = {"formation_timeout_s": FORMATION_TIMEOUT_S, "collective_timeout_s": 60.0}


@dataclass(frozen=True)
class Outcome:
    """What a member answered, and how long that took it."""

    value: Any
    took_s: float

    @property
    def failed(self) -> bool:
        return isinstance(self.value, TransportError)


class Handle:
    """One member, seen by a test: `order` returns at once, `wait` has the outcome."""

    def __init__(self) -> None:
        self.number = 0
        self.answers: dict[int, Outcome] = {}
        self.arrived = threading.Condition()

    def order(self, name: str, *args: Any) -> int:
        self.number += 1
        self.post(self.number, name, args)
        return self.number

    def wait(self, number: int) -> Outcome:
        with self.arrived:
            assert self.arrived.wait_for(lambda: number in self.answers, LIMIT_S), "no answer: the member hangs"
            outcome = self.answers.pop(number)
        if isinstance(outcome.value, AssertionError):
            raise outcome.value
        return outcome

    def do(self, name: str, *args: Any) -> Any:
        outcome = self.wait(self.order(name, *args))
        if outcome.failed:
            raise outcome.value
        return outcome.value

    def receive(self, answer: tuple[int, float, Any]) -> None:
        with self.arrived:
            self.answers[answer[0]] = Outcome(answer[2], answer[1])
            self.arrived.notify_all()

    def post(self, number: int, name: str, args: tuple[Any, ...]) -> None:
        raise NotImplementedError


class ThreadHandle(Handle):
    def __init__(self, network: InProcessNetwork) -> None:
        super().__init__()
        self.agent = MemberAgent(network, self.receive)

    def post(self, number: int, name: str, args: tuple[Any, ...]) -> None:
        self.agent.take(number, name, args)


class ProcessHandle(Handle):
    def __init__(self, context: Any, port: int, address: str, device: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=process_member, args=(port, address, theirs, device, options), daemon=True
        )
        self.process.start()
        theirs.close()
        self.ready: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        try:
            self.ready.put(self.pipe.recv())
            while True:
                self.receive(self.pipe.recv())
        except (EOFError, OSError):
            return

    def post(self, number: int, name: str, args: tuple[Any, ...]) -> None:
        self.pipe.send((number, name, args))


class Fleet:
    """Members of one run; views are numbered by `next_view`."""

    has_processes = False

    def __init__(self) -> None:
        self.view = 0
        self.members: list[Any] = []

    def next_view(self) -> int:
        self.view += 1
        return self.view

    def all(self, name: str, args: list[tuple[Any, ...]], members: list[Any] | None = None) -> list[Outcome]:
        chosen = self.members[: len(args)] if members is None else members
        orders = [(member, member.order(name, *a)) for member, a in zip(chosen, args, strict=True)]
        return [member.wait(number) for member, number in orders]

    def form(self, world_size: int, members: list[Any] | None = None) -> int:
        view = self.next_view()
        outcomes = self.all("connect", [(view, rank, world_size) for rank in range(world_size)], members)
        values = [outcome.value for outcome in outcomes]
        assert values == [world_size] * world_size, values
        return view

    def clean(self) -> None:
        """After a test: nobody is left in a view."""
        for member in self.members:
            member.order("cut", self.view)
        for member in self.members:
            member.wait(member.order("forget"))

    def stop(self) -> None: ...


class ThreadFleet(Fleet):
    def __init__(self, size: int) -> None:
        super().__init__()
        network = InProcessNetwork(**OPTIONS)
        self.members = [ThreadHandle(network) for _ in range(size)]


class ProcessFleet(Fleet):
    """Real processes. Those that a test killed are replaced by `clean`."""

    has_processes = True

    def __init__(self, size: int, address: str = "127.0.0.1", **options: Any) -> None:
        super().__init__()
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["raysgd_local.transport.process_group", "member_agent"])
        self.address, self.options = address, OPTIONS | options
        self.store = dist.TCPStore(address, 0, is_master=True, wait_for_workers=False)
        self.members = [self.start(index) for index in range(size)]
        for member in self.members:
            member.ready.get(timeout=60)

    def start(self, index: int) -> ProcessHandle:
        device = f"cuda:{index}" if self.options.get("backend") == "nccl" else "cpu"
        return ProcessHandle(self.context, self.store.port, self.address, device, self.options)

    def clean(self) -> None:
        dead = [index for index, member in enumerate(self.members) if not member.process.is_alive()]
        for index in dead:
            self.members[index] = self.start(index)
        for index in dead:
            self.members[index].ready.get(timeout=60)
        super().clean()

    def stop(self) -> None:
        for member in self.members:
            member.process.kill()
        for member in self.members:
            member.process.join(10)


def wait_until(holds: Any, limit_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


def rank_order_sum(seeds: list[int], numel: int, dtype: torch.dtype) -> torch.Tensor:
    from member_agent import content

    total = content(seeds[0], numel, dtype)
    for seed in seeds[1:]:
        total += content(seed, numel, dtype)
    return total
