"""The cluster model's arithmetic: links, rings, machines, starts, and failures drawn from rates."""

from __future__ import annotations

import math

import pytest

from raysgd_local.errors import InputError
from raysgd_local.faults.language import parse, written
from raysgd_local.simulation.cluster.cluster_model import ClusterModel, Failures, Nodes
from raysgd_local.simulation.cluster.hazards import drawn_faults

MB = 1e6


def test_a_ring_sends_nearly_twice_the_vector_in_two_rounds_of_messages():
    cluster = ClusterModel(latency_ms=1, bandwidth_mbps=80)  # 10 MB/s
    assert cluster.reduction_s(8 * MB, 2) == pytest.approx(0.8 + 2 * 0.001)
    assert cluster.reduction_s(8 * MB, 4) == pytest.approx(1.2 + 6 * 0.001)


def test_one_worker_communicates_with_nobody():
    cluster = ClusterModel(latency_ms=1, bandwidth_mbps=80, nodes=Nodes(4))
    assert cluster.reduction_s(8 * MB, 1) == cluster.broadcast_s(8 * MB, 1) == 0


def test_a_broadcast_is_as_long_as_a_binary_tree_is_deep():
    cluster = ClusterModel(latency_ms=1, bandwidth_mbps=80)
    assert [cluster.broadcast_s(MB, members) for members in (2, 4, 5)] == pytest.approx([0.101, 0.202, 0.303])


def test_workers_on_one_machine_use_its_link():
    machines = Nodes(4, latency_ms=0, bandwidth_mbps=8000)
    cluster = ClusterModel(latency_ms=1, bandwidth_mbps=80, nodes=machines)
    assert cluster.reduction_s(8 * MB, 4) == pytest.approx(0.012)
    assert cluster.broadcast_s(8 * MB, 4) == pytest.approx(0.016)


def test_a_ring_over_several_machines_goes_at_the_pace_of_the_link_between_them():
    alone = ClusterModel(latency_ms=1, bandwidth_mbps=80)
    together = ClusterModel(latency_ms=1, bandwidth_mbps=80, nodes=Nodes(4))
    assert together.reduction_s(8 * MB, 8) == alone.reduction_s(8 * MB, 8)


def test_two_levels_pay_the_link_between_machines_once_a_machine():
    machines = Nodes(4, latency_ms=0.1, bandwidth_mbps=8000, reduction="two-level")
    cluster = ClusterModel(latency_ms=1, bandwidth_mbps=80, nodes=machines)
    inside = 6 * (2 * MB / 1e9 + 0.0001)
    between = 2 * (4 * MB / 1e7 + 0.001)
    assert cluster.reduction_s(8 * MB, 8) == pytest.approx(inside + between)


def test_machines_of_one_worker_are_no_machines():
    flat = ClusterModel(bandwidth_mbps=80)
    for reduction in ("ring", "two-level"):
        alone = ClusterModel(bandwidth_mbps=80, nodes=Nodes(1, reduction=reduction))
        assert alone.reduction_s(MB, 6) == flat.reduction_s(MB, 6)
        assert alone.broadcast_s(MB, 6) == flat.broadcast_s(MB, 6)


def test_late_workers_come_when_they_arrive_and_replacements_when_they_are_found():
    cluster = ClusterModel(startup_s=5, arrivals_s=(60, 90), failures=Failures(replacement_s=30))
    first = [cluster.up_s(number, 0.0, workers=4) for number in range(4)]
    assert first == [5, 5, 65, 95]
    assert cluster.up_s(4, 100.0, workers=4) == 135


def test_more_arrivals_than_workers_are_those_of_the_first():
    cluster = ClusterModel(startup_s=0, arrivals_s=(1, 2, 3))
    assert [cluster.up_s(number, 0.0, workers=2) for number in range(2)] == [1, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency_ms": -1},
        {"bandwidth_mbps": 0},
        {"bandwidth_mbps": math.inf},
        {"speeds": (1, 0)},
        {"startup_s": math.inf},
        {"arrivals_s": (-1,)},
        {"steps": 0.1},
        {"round_ms": -1},
    ],
)
def test_a_cluster_that_can_not_be_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(InputError) as refused:
        ClusterModel(**wrong)
    assert refused.value.field == name


def test_failures_come_as_often_as_their_rates_say():
    failures = Failures(deaths_per_hour=0.5, preemptions_per_hour=2.0, notice_s=120)
    faults = drawn_faults(failures, workers=40, horizon_s=24 * 3600, seed=1)
    kinds = [fault.kind for fault in faults]
    assert kinds.count("kill") == pytest.approx(0.5 * 40 * 24, rel=0.1)
    assert kinds.count("drain") == pytest.approx(2.0 * 40 * 24, rel=0.1)
    times = [fault.when.seconds for fault in faults]
    assert times == sorted(times)
    assert {fault.target for fault in faults} == set(range(40))
    assert {fault.amount for fault in faults if fault.kind == "drain"} == {120}


def test_drawn_failures_can_be_written_down_and_read_again():
    failures = Failures(deaths_per_hour=3, preemptions_per_hour=3)
    faults = drawn_faults(failures, workers=4, horizon_s=9999, seed=5)
    assert len(faults) > 10
    assert parse(written(faults)) == faults
    assert drawn_faults(failures, workers=4, horizon_s=9999, seed=5) == faults
    assert drawn_faults(failures, workers=4, horizon_s=9999, seed=6) != faults


def test_without_rates_nothing_fails():
    assert drawn_faults(Failures(), workers=1000, horizon_s=1e6, seed=0) == ()
