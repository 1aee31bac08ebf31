"""Averaging with some others only: known answers of gossip, blocks and dynamic averaging."""

from __future__ import annotations

import numpy as np
import pytest

from raysgd_local.algorithms.averaging import Blocks, Gossip, mixing
from raysgd_local.algorithms.schedules import (
    AdaComm,
    Dynamic,
    EveryStep,
    FixedPeriod,
    Hierarchical,
    Observation,
    Once,
)
from raysgd_local.errors import InputError

TOPOLOGIES = ("ring", "torus", "exponential", "pairs", "complete")


def matrix(topology, round, m, ill=()):
    healthy = tuple(rank not in ill for rank in range(m))
    rows = np.zeros((m, m))
    for rank in range(m):
        for peer, weight in mixing(Gossip(topology), rank, round, healthy).items():
            rows[rank, peer] = weight
    return rows


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 7, 8, 12])
def test_weights_are_symmetric_and_sum_to_one_so_the_unweighted_mean_is_conserved(topology, m):
    for round in range(5):
        found = matrix(topology, round, m)
        np.testing.assert_allclose(found, found.T)
        np.testing.assert_allclose(found.sum(axis=1), 1.0)
        assert found.min() >= 0


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("m", [2, 5, 8])
def test_members_come_together(topology, m):
    product = np.eye(m)
    for round in range(120):
        product = matrix(topology, round, m) @ product
    np.testing.assert_allclose(product, np.full((m, m), 1 / m), atol=1e-3)


def test_the_ring_contracts_by_its_second_singular_value():
    """W of a ring has the eigenvalues 1/3 + 2/3·cos(2πk/m)."""
    m, x = 8, np.cos(2 * np.pi * np.arange(8) / 8)
    np.testing.assert_allclose(matrix("ring", 0, m) @ x, (1 / 3 + 2 / 3 * np.cos(2 * np.pi / m)) * x, atol=1e-12)


def test_complete_is_the_mean_and_one_peer_exponential_is_exact_after_three_rounds_of_eight():
    np.testing.assert_allclose(matrix("complete", 0, 5), np.full((5, 5), 0.2))
    product = np.eye(8)
    for round in range(3):
        product = matrix("exponential", round, 8) @ product
    np.testing.assert_allclose(product, np.full((8, 8), 1 / 8))


def test_two_members_have_one_edge_and_of_an_odd_number_one_idles():
    np.testing.assert_allclose(matrix("ring", 0, 2), [[0.5, 0.5], [0.5, 0.5]])
    for round in range(6):
        assert sum(matrix("pairs", round, 5).diagonal() == 1.0) == 1


def test_a_torus_has_four_neighbours_and_a_prime_number_of_workers_a_ring():
    assert sorted(Gossip("torus").neighbours(0, 0, 12)) == [1, 3, 4, 8]
    assert sorted(Gossip("torus").neighbours(0, 0, 7)) == [1, 6]


def test_who_is_not_healthy_is_nobody_s_neighbour():
    found = matrix("ring", 0, 5, ill=(2,))
    assert found[2, 2] == 1.0
    assert found[1].tolist() == pytest.approx([1 / 3, 2 / 3, 0, 0, 0])


def seen(round, whole, loss=1.0):
    return Observation(round, loss, 8, 8 * round, round, 0, float(round), 1.0, 4, whole=whole)


def follow(schedule, rounds, losses=lambda round: 1.0, alone=lambda round: False):
    """What each round is, where those that the schedule leaves open are not over all."""
    state, found = schedule.init(), []
    for round in range(1, rounds + 1):
        whole = state.period.mode == "parameters" or alone(round)
        found.append((state.period.tau, whole))
        state = schedule.next(state, seen(round, whole, losses(round)))
        assert schedule.restore(_plain(state)) == state
    return found


def _plain(state):
    from raysgd_local.serialization import to_plain

    return to_plain(state)


def test_every_third_averaging_is_over_all_blocks():
    found = follow(Hierarchical(FixedPeriod(2), FixedPeriod(3)), 7)
    assert found == [(2, False), (2, False), (2, True)] * 2 + [(2, False)]


def test_with_a_global_period_of_one_it_is_local_sgd():
    assert follow(Hierarchical(FixedPeriod(4), FixedPeriod(1)), 5) == [(4, True)] * 5


def test_a_global_averaging_out_of_turn_begins_the_count_anew():
    found = follow(Hierarchical(FixedPeriod(2), FixedPeriod(3)), 6, alone=lambda round: round == 2)
    assert [whole for _, whole in found] == [False, True, False, False, True, False]


def test_adacomm_drives_the_global_period_by_the_loss_of_all_rounds_since():
    schedule = Hierarchical(FixedPeriod(2), AdaComm(tau0=4, interval_s=1))
    found = follow(schedule, 9, losses=lambda round: 1.0 if round <= 4 else 1 / 16)
    assert [whole for _, whole in found] == [False] * 3 + [True] + [False, True] + [True] * 3


@pytest.mark.parametrize("options", [{"inside": EveryStep()}, {"across": Once()}, {"across": Dynamic()}])
def test_what_does_not_average_parameters_of_all_can_t_be_a_part_of_it(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Hierarchical(**options)


def test_dynamic_averaging_goes_on_alone_up_to_its_limit():
    assert follow(Dynamic(every=2, delta=1.0, most=3), 6) == [(2, False), (2, False), (2, True)] * 2
    assert [whole for _, whole in follow(Dynamic(2, 1.0, 3), 5, alone=lambda round: round == 1)] == [
        *(True, False, False),
        *(True, False),
    ]


def test_blocks_are_nodes_or_named_or_so_many():
    nodes = ("a", "b", "a", "c")
    assert Blocks().blocks(nodes) == (0, 1, 0, 2)
    assert Blocks(named=(("b", "c"),)).blocks(nodes) == (0, 1, 0, 1)
    assert Blocks(count=2).blocks(nodes) == (0, 0, 1, 1)
    assert Blocks(count=9).blocks(nodes[:2]) == (0, 4)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Blocks(count=0), "count"),
        (lambda: Blocks(count=2, named=(("a",),)), "named"),
        (lambda: Gossip("star"), "topology"),
        (lambda: Dynamic(every=0), "every"),
        (lambda: Dynamic(delta=-1.0), "delta"),
        (lambda: Dynamic(most=0), "most"),
    ],
)
def test_what_can_t_be_is_refused(make, field):
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.field == field
