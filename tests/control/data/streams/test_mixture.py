"""Mixtures: how far each source was read follows from the position alone."""

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raysgd_local.control.data.streams.mixture import Mixture, next_source, source_cursors


@st.composite
def mixtures(draw):
    count = draw(st.integers(1, 4))
    weights = draw(st.lists(st.sampled_from([0.001, 0.3, 1.0, 5.0]), min_size=count, max_size=count))
    repeat = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    totals = draw(st.lists(st.integers(0, 40), min_size=count, max_size=count))
    return Mixture(tuple(weights), draw(st.integers(0, 3)), tuple(repeat)), totals


def read(mixture, totals, most):
    """Read row by row; a source's total becomes known when a row of it is wanted in vain. Return each row's source."""
    counts, known, sources = [0] * len(totals), [None] * len(totals), []
    while len(sources) < most and (source := next_source(mixture, len(sources), known)) is not None:
        if not mixture.repeat[source] and counts[source] == totals[source]:
            known[source] = totals[source]
        else:
            counts[source] += 1
            sources.append(source)
    return sources, known


@settings(max_examples=60)
@given(mixtures())
def test_cursors_of_sources_are_what_was_read_row_by_row(case):
    mixture, totals = case
    sources, known = read(mixture, totals, 150)
    for cursor in range(len(sources) + 1):
        expected = tuple(sources[:cursor].count(source) for source in range(len(totals)))
        assert source_cursors(mixture, cursor, totals) == expected
        if cursor == len(sources):
            assert source_cursors(mixture, cursor, known) == expected


@settings(max_examples=60)
@given(mixtures())
def test_all_rows_of_sources_that_do_not_repeat_are_read_and_then_the_mixture_ends(case):
    mixture, totals = case
    if all(mixture.repeat):
        assert next_source(mixture, 10**9, totals) is not None
        return
    end = 10**9
    cursors = source_cursors(mixture, end, totals)
    assert all(again or cursors[i] == totals[i] for i, again in enumerate(mixture.repeat))
    assert next_source(mixture, end, totals) is None
    assert source_cursors(mixture, sum(cursors), totals) == cursors


@given(st.lists(st.sampled_from([0.1, 0.5, 1.0, 4.0]), min_size=1, max_size=5), st.integers(0, 10**12))
def test_no_source_runs_ahead_of_its_weight(weights, cursor):
    mixture = Mixture(tuple(weights), 7, (True,) * len(weights))
    cursors = np.array(source_cursors(mixture, cursor, [None] * len(weights)))
    assert cursors.sum() == cursor
    exact = cursor * np.array(weights) / sum(weights)
    assert (np.abs(cursors - exact) <= len(weights) + cursor / 10_000).all()


def test_another_seed_mixes_in_another_order():
    orders = {tuple(read(Mixture((1.0, 1.0, 1.0), seed, (True,) * 3), [0] * 3, 12)[0]) for seed in range(5)}
    assert len(orders) > 1


def test_far_positions_take_no_longer_than_near_ones():
    mixture = Mixture((3.0, 2.0, 1.0), 7, (False, True, False))
    source_cursors(mixture, 10, [10**11, None, None])
    begin = time.process_time()
    for cursor in range(10**12, 10**12 + 100):
        source_cursors(mixture, cursor, [10**11, None, 10**12])
    assert time.process_time() - begin < 1  # about 0.02 s
