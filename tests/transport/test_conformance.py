"""What every transport must do. One suite, run over threads and over real processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
import torch
from fleets import FORMATION_TIMEOUT_S, Fleet, ProcessFleet, ThreadFleet, rank_order_sum, wait_until

SIZE = 5
QUICK_S = 1.0
LARGE = 400_000  # beyond the size from which shared memory is used


@pytest.fixture(scope="module", params=["inprocess", "gloo", "nccl"])
def shared_fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    if request.param == "nccl" and torch.cuda.device_count() < SIZE:
        pytest.skip(f"NCCL needs a GPU for each of {SIZE} members; there are {torch.cuda.device_count()}")
    fleet = ThreadFleet(SIZE) if request.param == "inprocess" else ProcessFleet(SIZE, backend=request.param)
    yield fleet
    fleet.stop()


@pytest.fixture
def fleet(shared_fleet: Fleet) -> Iterator[Fleet]:
    yield shared_fleet
    shared_fleet.clean()


@pytest.fixture
def processes(fleet: Fleet) -> Fleet:
    if not fleet.has_processes:
        pytest.skip("needs members that are processes")
    return fleet


def reduce_all(
    fleet: Fleet, view: int, members: list | None = None, numel: int = 1000, **kinds: torch.dtype
) -> list:
    count = len(members) if members is not None else SIZE
    dtype = kinds.get("dtype", torch.float32)
    return fleet.all("all_reduce", [(view, 10 + rank, numel, dtype) for rank in range(count)], members)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("numel", [1, 1000, LARGE])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_sums_are_right_and_bit_identical_on_all_ranks(
    fleet: Fleet, world_size: int, numel: int, dtype: torch.dtype
) -> None:
    view = fleet.form(world_size)
    outcomes = fleet.all("all_reduce", [(view, 10 + rank, numel, dtype) for rank in range(world_size)])
    first = outcomes[0].value
    assert all(torch.equal(first, outcome.value) for outcome in outcomes)
    torch.testing.assert_close(first, rank_order_sum([10 + rank for rank in range(world_size)], numel, dtype))


def test_a_vector_may_be_written_while_it_is_reduced(fleet: Fleet) -> None:
    view = fleet.form(SIZE)
    ends = [10, 10, 100_000, 300_000]
    orders = [
        (view, 10 + rank, ends, 0.03 * rank) for rank in range(SIZE)
    ]  # the last takes more than a tenth of a second
    outcomes = fleet.all("all_reduce_in_parts", orders)
    assert all(torch.equal(outcomes[0].value, outcome.value) for outcome in outcomes)
    torch.testing.assert_close(outcomes[0].value, rank_order_sum([10, 11, 12, 13, 14], 300_003, torch.float32))


@pytest.mark.parametrize("numel", [1000, 2 * LARGE])
def test_an_error_of_what_is_written_is_its_own_and_no_failure_of_the_network(fleet: Fleet, numel: int) -> None:
    view = fleet.form(3)
    orders = [(view, numel, "no such buffer" if rank == 1 else "") for rank in range(3)]
    first, unwritten, last = fleet.all("all_reduce_unwritten", orders)
    assert unwritten.value == "no such buffer"
    assert first.failed
    assert last.failed


@pytest.mark.parametrize("numel", [1000, LARGE])
def test_a_sum_may_be_another_thread_s_while_a_member_computes(fleet: Fleet, numel: int) -> None:
    view = fleet.form(3)
    aside = fleet.all("all_reduce_aside", [(view, 10 + rank, numel) for rank in range(3)])
    torch.testing.assert_close(aside[0].value, rank_order_sum([10, 11, 12], numel, torch.float32))
    assert all(torch.equal(aside[0].value, outcome.value) for outcome in aside)
    assert torch.equal(reduce_all(fleet, view, fleet.members[:3], numel)[0].value, aside[0].value)


def test_who_cuts_a_sum_of_its_other_thread_is_free_and_so_are_the_others(fleet: Fleet) -> None:
    view = fleet.form(3)
    reduce_all(fleet, view, fleet.members[:3])
    waiting = fleet.members[1].order("all_reduce", view, 1, 1000)
    started = time.monotonic()
    assert fleet.members[0].wait(fleet.members[0].order("all_reduce_aside", view, 1, 1000, True)).failed
    assert fleet.members[1].wait(waiting).failed
    assert time.monotonic() - started < QUICK_S


@pytest.mark.parametrize("delay_s", [0.099, 0.1, 0.101, 0.25])
def test_members_wait_for_one_that_is_late(fleet: Fleet, delay_s: float) -> None:
    view = fleet.form(3)
    for _ in range(5):
        orders = [(view, 10 + rank, [1000], delay_s if rank == 2 else 0.0) for rank in range(3)]
        outcomes = fleet.all("all_reduce_in_parts", orders)
        assert all(torch.equal(outcomes[0].value, outcome.value) for outcome in outcomes)


def test_vectors_that_the_network_allocated_are_summed_like_any_other(fleet: Fleet) -> None:
    fleet.all("allocate", [(LARGE + 3, torch.float32)] * SIZE)
    view = fleet.form(SIZE)
    for start in (0, 5):
        outcomes = fleet.all("all_reduce_allocated", [(view, 10 + rank, start) for rank in range(SIZE)])
        expected = rank_order_sum([10, 11, 12, 13, 14], LARGE + 3 - start, torch.float32)
        assert all(torch.equal(outcomes[0].value, outcome.value) for outcome in outcomes)
        torch.testing.assert_close(outcomes[0].value, expected)


def test_members_may_mix_allocated_vectors_with_others(fleet: Fleet) -> None:
    fleet.all("allocate", [(LARGE, torch.float32)] * SIZE)
    view = fleet.form(SIZE)
    orders = [fleet.members[rank].order("all_reduce_allocated", view, 10 + rank) for rank in range(SIZE - 1)]
    last = fleet.members[-1].do("all_reduce", view, 10 + SIZE - 1, LARGE)
    assert all(torch.equal(last, m.wait(n).value) for m, n in zip(fleet.members, orders, strict=False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16])
def test_a_broadcast_brings_what_its_source_has(fleet: Fleet, dtype: torch.dtype) -> None:
    view = fleet.form(SIZE)
    for source in range(SIZE):
        rows = [(torch.arange(100) % (rank + 2)).to(dtype) for rank in range(SIZE)]
        outcomes = fleet.all("broadcast", [(view, row, source) for row in rows])
        assert all(torch.equal(outcome.value, rows[source]) for outcome in outcomes)


def letters(rank: int, *shape: int) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(rank), dtype=torch.uint8)


@pytest.mark.parametrize("numel", [1, 1000, LARGE])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_a_gathering_brings_everybody_s_content_in_rank_order(fleet: Fleet, world_size: int, numel: int) -> None:
    view = fleet.form(world_size)
    contents = [letters(rank, numel) for rank in range(world_size)]
    outcomes = fleet.all("all_gather", [(view, content) for content in contents])
    assert all(torch.equal(outcome.value, torch.stack(contents)) for outcome in outcomes)


@pytest.mark.parametrize("numel", [1, 1000, LARGE])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_everyone_can_give_everyone_something_else(fleet: Fleet, world_size: int, numel: int) -> None:
    view = fleet.form(world_size)
    given = [letters(rank, world_size, numel) for rank in range(world_size)]
    outcomes = fleet.all("all_to_all", [(view, rows) for rows in given])
    for rank, outcome in enumerate(outcomes):
        assert torch.equal(outcome.value, torch.stack([rows[rank] for rows in given]))


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_neighbours_give_each_other_something_and_others_nothing(fleet: Fleet, world_size: int) -> None:
    view = fleet.form(world_size)
    sizes = [[abs(a - b) % 3 * 100_000 for b in range(world_size)] for a in range(world_size)]
    given = [[letters(9 * a + b, sizes[a][b]) for b in range(world_size)] for a in range(world_size)]
    before = [fleet.members[rank].do("wire_bytes", view) for rank in range(world_size)]
    outcomes = fleet.all("swap", [(view, parts) for parts in given])
    for rank, outcome in enumerate(outcomes):
        assert all(torch.equal(part, given[peer][rank]) for peer, part in enumerate(outcome.value))
        sent = fleet.members[rank].do("wire_bytes", view) - before[rank]
        assert sent == pytest.approx(sum(sizes[rank]), rel=0.02, abs=1000)


@pytest.mark.parametrize("what", ["all_gather", "all_to_all", "swap"])
def test_closing_one_side_ends_gatherings_too(fleet: Fleet, what: str) -> None:
    view = fleet.form(SIZE)
    shape = (1000,) if what == "all_gather" else (SIZE, 200)
    given = letters(0, *shape)
    content = list(given) if what == "swap" else given
    waiting = [member.order(what, view, content) for member in fleet.members[1:]]
    fleet.members[0].do("close", view)
    started = time.monotonic()
    assert all(m.wait(n).failed for m, n in zip(fleet.members[1:], waiting, strict=True))
    assert time.monotonic() - started < QUICK_S


def test_gathered_bytes_are_counted_as_they_cross_the_wire(fleet: Fleet) -> None:
    view = fleet.form(4)
    before = [fleet.members[rank].do("wire_bytes", view) for rank in range(4)]
    fleet.all("all_gather", [(view, letters(rank, 100_000)) for rank in range(4)])
    gathered = [fleet.members[rank].do("wire_bytes", view) for rank in range(4)]
    fleet.all("all_to_all", [(view, letters(rank, 4, 25_000)) for rank in range(4)])
    given = [fleet.members[rank].do("wire_bytes", view) for rank in range(4)]
    for a, b, c in zip(before, gathered, given, strict=True):
        assert b - a == pytest.approx(300_000, rel=0.02)
        assert c - b == pytest.approx(75_000, rel=0.02)


def test_views_follow_one_another_with_other_members_and_ranks(fleet: Fleet) -> None:
    for members in (fleet.members, fleet.members[1:4], fleet.members[::-1], fleet.members[:1], fleet.members[:2]):
        view = fleet.form(len(members), members)
        outcomes = reduce_all(fleet, view, members)
        expected = rank_order_sum([10 + rank for rank in range(len(members))], 1000, torch.float32)
        torch.testing.assert_close(outcomes[-1].value, expected)
        fleet.all("close", [(view,)] * len(members), members)


def test_a_member_of_an_old_view_disturbs_nobody_in_the_new_one(fleet: Fleet) -> None:
    old = fleet.form(3)
    new = fleet.form(2, fleet.members[:2])
    stale = fleet.members[2].order("all_reduce", old, 99, 1000)
    for _ in range(3):
        outcomes = reduce_all(fleet, new, fleet.members[:2])
        torch.testing.assert_close(outcomes[0].value, rank_order_sum([10, 11], 1000, torch.float32))
    fleet.members[2].do("cut", old)
    assert fleet.members[2].wait(stale).failed
    assert not reduce_all(fleet, new, fleet.members[:2])[0].failed


def test_closing_one_side_fails_all_others_fast(fleet: Fleet) -> None:
    view = fleet.form(SIZE)
    reduce_all(fleet, view)
    waiting = [member.order("all_reduce", view, 1, 1000) for member in fleet.members[1:]]
    fleet.members[0].do("close", view)
    started = time.monotonic()
    outcomes = [member.wait(number) for member, number in zip(fleet.members[1:], waiting, strict=True)]
    assert all(outcome.failed for outcome in outcomes)
    assert time.monotonic() - started < QUICK_S


@pytest.mark.parametrize("how", ["cut", "cut_transport"])
def test_cut_frees_a_blocked_member_and_through_it_the_others(fleet: Fleet, how: str) -> None:
    view = fleet.form(SIZE)
    waiting = [member.order("all_reduce", view, 1, 1000) for member in fleet.members[1:]]
    fleet.members[1].do(how, view)
    started = time.monotonic()
    assert all(m.wait(n).failed for m, n in zip(fleet.members[1:], waiting, strict=True))
    assert time.monotonic() - started < QUICK_S


def test_a_missing_member_fails_formation_after_the_time_out(fleet: Fleet) -> None:
    view = fleet.next_view()
    outcomes = fleet.all("connect", [(view, rank, SIZE) for rank in range(SIZE - 1)])
    assert all(outcome.failed for outcome in outcomes)
    assert max(outcome.took_s for outcome in outcomes) >= FORMATION_TIMEOUT_S
    assert max(outcome.took_s for outcome in outcomes) < FORMATION_TIMEOUT_S + QUICK_S
    late = fleet.all("connect", [(view, SIZE - 1, SIZE)], fleet.members[-1:])
    assert late[0].failed, "a failed formation burns its view"
    assert not any(outcome.failed for outcome in reduce_all(fleet, fleet.form(SIZE)))


def test_cut_ends_a_formation_at_once_for_all(fleet: Fleet) -> None:
    view = fleet.next_view()
    waiting = [member.order("connect", view, rank, SIZE) for rank, member in enumerate(fleet.members[:3])]
    fleet.members[0].do("cut", view)
    started = time.monotonic()
    assert all(m.wait(n).failed for m, n in zip(fleet.members, waiting, strict=False))
    assert time.monotonic() - started < QUICK_S < FORMATION_TIMEOUT_S
    assert not any(outcome.failed for outcome in reduce_all(fleet, fleet.form(SIZE)))


def test_a_view_that_was_cut_beforehand_is_not_joined(fleet: Fleet) -> None:
    view = fleet.next_view()
    fleet.members[0].do("cut", view)
    outcome = fleet.members[0].wait(fleet.members[0].order("connect", view, 0, SIZE))
    assert outcome.failed
    assert outcome.took_s < QUICK_S


def test_wire_bytes_are_about_those_of_a_ring_and_never_fall(fleet: Fleet) -> None:
    view = fleet.form(SIZE)
    before = [outcome.value for outcome in fleet.all("wire_bytes", [(view,)] * SIZE)]
    reduce_all(fleet, view, numel=LARGE)
    after = [outcome.value for outcome in fleet.all("wire_bytes", [(view,)] * SIZE)]
    ring = SIZE * 2 * (SIZE - 1) / SIZE * LARGE * 4
    assert sum(after) - sum(before) == pytest.approx(ring, rel=0.02)
    fleet.all("close", [(view,)] * SIZE)
    closed = [outcome.value for outcome in fleet.all("wire_bytes", [(view,)] * SIZE)]
    assert all(late >= early for late, early in zip(closed, after, strict=True))


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("end", ["close", "cut", "cut_transport"])
def test_use_after_the_end_raises_and_ending_twice_is_allowed(fleet: Fleet, world_size: int, end: str) -> None:
    view = fleet.form(world_size)
    for _ in range(2):
        fleet.all(end, [(view,)] * world_size)
    assert all(o.failed for o in fleet.all("all_reduce", [(view, 1, 10)] * world_size))
    assert all(o.failed for o in fleet.all("broadcast", [(view, torch.zeros(3), 0)] * world_size))


@pytest.mark.parametrize("allocated", [False, True])
def test_the_death_of_one_fails_all_others_at_once(processes: Fleet, allocated: bool) -> None:
    processes.all("allocate", [(LARGE, torch.float32)] * SIZE)
    view = processes.form(SIZE)
    words = ("all_reduce_allocated", view, 1) if allocated else ("all_reduce", view, 1, 1000)
    waiting = [member.order(*words) for member in processes.members[:-1]]
    os.kill(processes.members[-1].process.pid, signal.SIGKILL)
    started = time.monotonic()
    assert all(m.wait(n).failed for m, n in zip(processes.members, waiting, strict=False))
    assert time.monotonic() - started < QUICK_S
    survivors = processes.members[:-1]
    assert not any(outcome.failed for outcome in reduce_all(processes, processes.form(4, survivors), survivors))


def test_cut_frees_members_that_wait_for_a_stopped_process(processes: Fleet) -> None:
    view = processes.form(SIZE)
    stopped = processes.members[-1]
    os.kill(stopped.process.pid, signal.SIGSTOP)
    try:
        waiting = [member.order("all_reduce", view, 1, 1000) for member in processes.members[:-1]]
        processes.members[0].do("cut", view)
        started = time.monotonic()
        assert all(m.wait(n).failed for m, n in zip(processes.members, waiting, strict=False))
        assert time.monotonic() - started < QUICK_S
        survivors = processes.members[:-1]
        new = processes.form(4, survivors)
    finally:
        os.kill(stopped.process.pid, signal.SIGCONT)
    assert stopped.wait(stopped.order("all_reduce", view, 1, 1000)).failed, "it comes back to a view that is over"
    assert not any(outcome.failed for outcome in reduce_all(processes, new, survivors))


def test_a_death_while_connecting_blocks_the_others_only_until_the_cut(processes: Fleet) -> None:
    view = processes.next_view()
    victim = processes.members[-1]
    waiting = [m.order("connect", view, rank, SIZE) for rank, m in enumerate(processes.members[:-1])]
    os.kill(victim.process.pid, signal.SIGSTOP)
    victim.order("connect", view, SIZE - 1, SIZE)
    os.kill(victim.process.pid, signal.SIGKILL)
    processes.members[1].do("cut", view)
    started = time.monotonic()
    assert all(m.wait(n).failed for m, n in zip(processes.members, waiting, strict=False))
    assert time.monotonic() - started < QUICK_S
    survivors = processes.members[:-1]
    assert not any(outcome.failed for outcome in reduce_all(processes, processes.form(4, survivors), survivors))


def test_hundreds_of_views_leave_no_sockets_and_threads_behind(processes: Fleet) -> None:
    pair = processes.members[:2]

    def resources() -> list[tuple[int, int]]:
        return [member.do("resources") for member in pair]

    def once() -> None:
        view = processes.form(2, pair)
        reduce_all(processes, view, pair)
        processes.all("close", [(view,)] * 2, pair)

    once()
    before = resources()
    for _ in range(200):
        once()
    wait_until(lambda: all(now <= then for now, then in zip(resources(), before, strict=True)))
