"""The table of holders: invariant copies, spread over nodes, balance, and the fewest moves."""

import math
import random
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from raysgd_local.algorithms.placement import DisjointChunks, RedundantChunks
from raysgd_local.algorithms.placement.table import (
    ChunkHolder,
    Placement,
    chunk_bounds,
    default_chunks,
    rebalance,
)
from raysgd_local.errors import InputError


def fleet(size, nodes=1):
    return [ChunkHolder(f"w{index}", f"n{index % nodes}") for index in range(size)]


def moves(old, new):
    """The copies that `new` has and `old` had not, as (chunk, worker): the ones that have to be fetched."""
    pairs = enumerate(zip(old.holders, new.holders, strict=True))
    return [(chunk, worker) for chunk, (before, after) in pairs for worker in after if worker not in before]


def loads(table, live):
    held = table.loads
    return [held.get(worker.id, 0) for worker in live]


def best_loads(chunks, wanted, live):
    """The lowest possible top load and the highest possible bottom load, by an oracle."""
    nodes, copies = Counter(worker.node for worker in live), chunks * wanted
    if wanted <= len(nodes):  # at most one copy of a chunk on a node
        tops = [top for top in range(chunks + 1) if sum(min(chunks, top * n) for n in nodes.values()) >= copies]
        bottoms = [low for low in range(chunks + 1) if low * max(nodes.values()) <= chunks]
    else:  # at least one
        tops = [top for top in range(chunks + 1) if top * min(nodes.values()) >= chunks]
        bottoms = [low for low in range(chunks + 1) if sum(max(chunks, low * n) for n in nodes.values()) <= copies]
    lowest_top = next(top for top in tops if top * len(live) >= copies)
    return lowest_top, max(low for low in bottoms if low * len(live) <= copies)


def assert_invariants(table, live, copies):
    wanted = min(copies, len(live))
    node = {worker.id: worker.node for worker in live}
    spread = min(wanted, len(set(node.values())))
    for holders in table.holders:
        assert len(holders) == len(set(holders)) == wanted
        assert len({node[holder] for holder in holders}) == spread
    assert (max(loads(table, live)), min(loads(table, live))) == best_loads(table.chunks, wanted, live)


def cost(table, before, live):
    """Unequal loads first, then what has to be fetched."""
    weight = table.chunks * len(live) + 1
    return weight * sum(load**2 for load in loads(table, live)) + len(moves(before, table))


def least_cost(before, live, copies):
    """The cost of the best table there is, by linear programming: the flow network's solution is a whole one."""
    chunks, size, wanted = before.chunks, len(live), min(copies, len(live))
    nodes = sorted({worker.node for worker in live})
    holds = np.eye(chunks * size).reshape(chunks, size, chunks * size)  # one variable a chunk and worker
    steps = np.eye(size * chunks).reshape(size, chunks, size * chunks)  # and one for each chunk of a worker's load
    on_node = [holds[c, [w.node == node for w in live]].sum(axis=0) for c in range(chunks) for node in nodes]
    sign = 1.0 if wanted <= len(nodes) else -1.0  # one copy a node at most, or at least
    fetched = [worker.id not in before.holders[c] for c in range(chunks) for worker in live]
    squares = np.tile(2 * np.arange(1, chunks + 1) - 1, size) * (chunks * size + 1)
    found = linprog(
        np.concatenate([fetched, squares]),
        A_ub=np.hstack([sign * np.array(on_node), np.zeros((len(on_node), size * chunks))]),
        b_ub=np.full(len(on_node), sign),
        A_eq=np.vstack(
            [
                np.hstack([holds.sum(axis=1), np.zeros((chunks, size * chunks))]),
                np.hstack([holds.sum(axis=0), -steps.sum(axis=1)]),
            ]
        ),
        b_eq=np.concatenate([np.full(chunks, wanted), np.zeros(size)]),
        bounds=(0, 1),
    )
    return round(found.fun)


fleets = st.lists(st.integers(0, 3), min_size=1, max_size=7).map(
    lambda nodes: [ChunkHolder(f"w{index}", f"n{node}") for index, node in enumerate(nodes)]
)


@settings(max_examples=60, deadline=None)
@given(fleets, st.integers(1, 4), st.data())
def test_no_table_is_more_equal_or_as_equal_with_fewer_moves(live, copies, data):
    names = [f"w{index}" for index in range(len(live) + 2)]  # two have died
    holders = st.lists(st.sampled_from(names), max_size=5, unique=True).map(lambda held: tuple(sorted(held)))
    before = Placement(tuple(data.draw(st.lists(holders, min_size=1, max_size=12))))
    table = rebalance(before, live, copies)
    assert cost(table, before, live) == least_cost(before, live, copies)


changes = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=25)


@settings(max_examples=120, deadline=None)
@given(changes, st.integers(1, 4), st.integers(1, 5), st.integers(1, 60))
def test_after_any_joins_and_leaves_every_chunk_has_its_copies_spread_and_balanced(steps, copies, nodes, chunks):
    table, live = Placement.empty(chunks), {}
    for number, join in steps:
        if join:
            live[f"w{number}"] = ChunkHolder(f"w{number}", f"n{number % nodes}")
        else:
            live.pop(f"w{number}", None)
        table = rebalance(table, list(live.values()), copies)
        if live:
            assert_invariants(table, list(live.values()), copies)
        else:
            assert table == Placement.empty(chunks)


@settings(max_examples=60, deadline=None)
@given(changes, st.integers(1, 4), st.booleans())
def test_loads_differ_by_at_most_one_where_nodes_do_not_matter(steps, copies, own_node):
    table, live = Placement.empty(64), {}
    for number, join in steps:
        if join or len(live) == 1:
            live[number] = ChunkHolder(f"w{number}", f"n{number if own_node else 0}")
        else:
            live.pop(number, None)
        table = rebalance(table, list(live.values()), copies)
        if live:
            assert max(loads(table, live.values())) - min(loads(table, live.values())) <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(1, 4), st.integers(16, 128))
def test_a_join_moves_no_more_than_the_joiners_share_and_a_death_only_what_was_lost(size, copies, chunks):
    size = max(size, copies)
    live = fleet(size)
    table = rebalance(Placement.empty(chunks), live, copies)
    grown = rebalance(table, [*live, ChunkHolder("joiner", "n0")], copies)
    assert len(moves(table, grown)) == chunks * copies // (size + 1)
    assert {worker for _, worker in moves(table, grown)} <= {"joiner"}

    if size > copies:
        shrunk = rebalance(table, live[1:], copies)
        assert len(moves(table, shrunk)) == table.loads["w0"]


def test_a_death_that_needs_a_chain_of_moves_moves_only_what_was_lost():
    table = rebalance(Placement.empty(56), fleet(6), 4)
    shrunk = rebalance(table, fleet(6)[1:], 4)
    assert len(moves(table, shrunk)) == table.loads["w0"]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 10), st.integers(2, 4), st.randoms(use_true_random=False))
def test_any_losses_fewer_than_the_copies_leave_every_chunk_held(size, copies, rng):
    live = fleet(size, nodes=3)
    table = rebalance(Placement.empty(40), live, copies)
    dead = {worker.id for worker in rng.sample(live, min(copies, size) - 1)}
    assert all(set(holders) - dead for holders in table.holders)


def test_a_first_second_node_takes_a_copy_of_every_chunk():
    live = [ChunkHolder("a", "n1"), ChunkHolder("b", "n1")]
    table = rebalance(Placement.empty(10), live, copies=2)
    table = rebalance(table, [*live, ChunkHolder("c", "n2")], copies=2)
    assert table.loads == {"a": 5, "b": 5, "c": 10}


def test_loads_are_balanced_by_a_chain_of_moves_where_no_single_move_keeps_copies_apart():
    live = [ChunkHolder(f"w{index}", f"n{node}") for index, node in enumerate((0, 2, 0, 1, 0, 1))]
    start = Placement((("w0", "w5"), ("w0", "w5"), ("w0", "w1")))
    table = rebalance(start, live, copies=2)
    assert_invariants(table, live, copies=2)
    assert loads(table, live) == [1] * 6


def test_fewer_copies_than_before_drops_the_surplus_and_moves_nothing():
    live = fleet(6, nodes=3)
    table = rebalance(Placement.empty(48), live, copies=3)
    fewer = rebalance(table, live, copies=2)
    assert_invariants(fewer, live, copies=2)
    assert moves(table, fewer) == []


def test_the_order_in_which_workers_are_named_changes_nothing():
    live = fleet(9, nodes=4)
    shuffled = random.Random(1).sample(live, len(live))
    assert rebalance(Placement.empty(72), live, 2) == rebalance(Placement.empty(72), shuffled, 2)


def test_the_table_is_the_same_in_every_process_and_release():
    table = rebalance(Placement.empty(6), fleet(3), copies=1)
    assert table.holders == (("w0",), ("w0",), ("w2",), ("w2",), ("w1",), ("w1",))


def test_three_hundred_joins_and_leaves_never_move_more_than_needed():
    rng, live, table = random.Random(0), {}, Placement.empty(128)
    for number in range(300):
        before = set(live)
        if len(live) < 3 or (len(live) < 16 and rng.random() < 0.5):
            live[number] = ChunkHolder(f"w{number}", "n")
        else:
            lost = table.loads[live.pop(rng.choice(sorted(live))).id]
        changed = rebalance(table, list(live.values()), copies=2)
        joined = len(live) > len(before)
        most = 128 * min(2, len(live)) // len(live) if joined else lost
        assert len(moves(table, changed)) <= most
        table = changed


def test_redundant_chunks_make_a_workers_gradient_as_near_the_mean_as_random_sets_do():
    """E‖∇F_i − ∇F‖² = (s²/r)(p−r)/(p−1) for random sets of r of p chunks; neighbouring sets would be far worse."""
    p, r = 10, 2
    gradients = np.arange(p, dtype=float)  # data sorted by label: neighbours are alike
    expected = gradients.var() / r * (p - r) / (p - 1)
    drift = []
    for fleet_number in range(300):
        live = [ChunkHolder(f"run{fleet_number}-{index}", "n") for index in range(p)]
        table = rebalance(Placement.empty(p), live, copies=r)
        for worker in live:
            drift.append(
                (gradients[[worker.id in holders for holders in table.holders]].mean() - gradients.mean()) ** 2
            )
    assert np.mean(drift) == pytest.approx(expected, rel=0.1)


def test_a_thousand_workers_are_placed_within_seconds():
    begin = time.perf_counter()
    table = rebalance(Placement.empty(8000), fleet(1000, nodes=125), copies=2)
    assert time.perf_counter() - begin < 20  # about 1 s
    assert set(table.loads.values()) == {16}


@given(st.integers(0, 500), st.integers(1, 60))
def test_chunks_cover_all_samples_and_differ_by_at_most_one(samples, chunks):
    bounds = chunk_bounds(samples, chunks)
    sizes = [stop - start for start, stop in pairwise(bounds)]
    assert (bounds[0], bounds[-1], len(sizes)) == (0, samples, chunks)
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 100), st.integers(1, 10_000))
def test_default_chunks_are_eight_a_worker_and_none_is_empty(max_workers, samples):
    chunks = default_chunks(max_workers, samples)
    assert chunks == samples or chunks >= 8 * max_workers
    assert min(stop - start for start, stop in pairwise(chunk_bounds(samples, chunks))) >= 1


def test_copies_must_be_a_positive_integer():
    assert (DisjointChunks().copies_among(4), RedundantChunks().copies_among(4)) == (1, 2)
    for copies in (0, -1, 1.5, True, math.nan):
        with pytest.raises(InputError, match=r"^copies: "):
            RedundantChunks(copies=copies)


def test_redundancy_says_how_many_of_the_others_chunks_a_worker_has():
    assert RedundantChunks(redundancy=0.25).copies_among(8) == 3
    assert RedundantChunks(redundancy=1.0).copies_among(4) == 4
    assert RedundantChunks() == RedundantChunks(copies=2)


@pytest.mark.parametrize("options", [{"redundancy": 0.0}, {"redundancy": 1.5}, {"redundancy": 0.5, "copies": 2}])
def test_a_redundancy_that_means_nothing_is_refused(options):
    with pytest.raises(InputError, match="redundancy"):
        RedundantChunks(**options)
