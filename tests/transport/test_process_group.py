"""What is particular to members that are processes: addresses, sockets, shared memory, arguments."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from fleets import ProcessFleet, rank_order_sum

from raysgd_local.errors import InputError, TransportError
from raysgd_local.transport.gloo.sockets import with_listener
from raysgd_local.transport.gloo.transport import GlooTransport, Goodbyes
from raysgd_local.transport.process_group import ProcessGroupNetwork

NUMEL = 500_000


@pytest.fixture(scope="module")
def fleet() -> Iterator[ProcessFleet]:
    fleet = ProcessFleet(3)
    yield fleet
    fleet.stop()


def sum_allocated(fleet: ProcessFleet) -> tuple[list[torch.Tensor], list[int], list[int]]:
    fleet.all("allocate", [(NUMEL, torch.float32)] * 3)
    view = fleet.form(3)
    results = [o.value for o in fleet.all("all_reduce_allocated", [(view, 10 + rank) for rank in range(3)])]
    counted = [o.value for o in fleet.all("wire_bytes", [(view,)] * 3)]
    measured = [o.value for o in fleet.all("socket_bytes", [(view,)] * 3)]
    return results, counted, measured


def test_allocated_vectors_do_not_pass_through_sockets_on_one_machine_but_are_counted(fleet: ProcessFleet) -> None:
    results, counted, measured = sum_allocated(fleet)
    torch.testing.assert_close(results[0], rank_order_sum([10, 11, 12], NUMEL, torch.float32))
    assert all(torch.equal(results[0], result) for result in results)
    assert sum(measured) < 20_000
    assert sum(counted) == pytest.approx(3 * 4 / 3 * NUMEL * 4, rel=0.01)


def test_without_shared_memory_everything_passes_through_sockets() -> None:
    fleet = ProcessFleet(3, shared_memory=False)
    try:
        results, counted, measured = sum_allocated(fleet)
    finally:
        fleet.stop()
    torch.testing.assert_close(results[0], rank_order_sum([10, 11, 12], NUMEL, torch.float32))
    assert counted == measured
    assert sum(measured) == pytest.approx(3 * 4 / 3 * NUMEL * 4, rel=0.01)


def test_members_meet_over_ipv6() -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    fleet = ProcessFleet(2, address="::1")
    try:
        view = fleet.form(2)
        outcomes = fleet.all("all_reduce", [(view, 10, 100), (view, 11, 100)])
        torch.testing.assert_close(outcomes[0].value, rank_order_sum([10, 11], 100, torch.float32))
    finally:
        fleet.stop()


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_listening_socket_opened_by_another_thread_meanwhile_is_not_mistaken_for_ones_own() -> None:
    strangers: list[socket.socket] = []

    def listen() -> socket.socket:
        if not strangers:
            strangers.append(socket.create_server(("127.0.0.1", 0)))
        return socket.create_server(("127.0.0.1", 0))

    own, address = with_listener(listen)
    assert own.getsockname() == tuple(address)
    for sock in [own, *strangers]:
        sock.close()


def test_listening_sockets_that_cannot_be_told_apart_are_an_error() -> None:
    def listen() -> list[socket.socket]:
        return [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]

    with pytest.raises(TransportError, match="could not tell"):
        with_listener(listen)


class LateWork:
    """Is done in the very moment in which a wait for it runs out of patience."""

    def __init__(self, failure: str = "") -> None:
        self.failure, self.waits = failure, 0

    def is_completed(self) -> bool:
        return True

    def wait(self, *patience: object) -> None:
        self.waits += 1
        if patience:
            raise RuntimeError("Operation timed out!")
        if self.failure:
            raise RuntimeError(self.failure)


class LateGroup:
    def __init__(self, work: LateWork) -> None:
        self.work = work

    def rank(self) -> int:
        return 0

    def size(self) -> int:
        return 2

    def allreduce(self, tensors: object, options: object) -> LateWork:
        return self.work


class NoWires:
    broken = False

    def descriptors(self) -> list[int]:
        return []

    def shut(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("failure", ["", "a peer died"])
def test_a_result_that_comes_as_patience_ends_is_a_result(failure: str) -> None:
    work = LateWork(failure)
    goodbyes = Goodbyes(dist.HashStore())
    transport = GlooTransport(LateGroup(work), NoWires(), 60.0, goodbyes)  # type: ignore[arg-type]
    if failure:
        with pytest.raises(TransportError, match=failure):
            transport.all_reduce(torch.zeros(3))
    else:
        transport.all_reduce(torch.zeros(3))
    transport.close()
    assert work.waits >= 2


def test_bad_arguments_are_input_errors() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with pytest.raises(InputError, match="backend"):
        ProcessGroupNetwork(store, "127.0.0.1", "run/1", backend="mpi")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="device"):
        ProcessGroupNetwork(store, "127.0.0.1", "run/1", backend="nccl")
