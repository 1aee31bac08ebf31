"""Who has which chunks' data, where each worker has its own alone."""

from __future__ import annotations

from raysgd_local.algorithms.placement.table import ChunkHolder, Placement
from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.data.chunk_transfer import Gift, Held, alone, gifts, placed, sources
from raysgd_local.control.data.deal import Deal
from raysgd_local.control.messages import Order, View
from raysgd_local.control.replicated.program import Program
from raysgd_local.control.replicated.state import Replicated


def order(holders, have, members=("a", "b", "c")):
    deal = Deal(1, 0, 0, 8, 4, b"\x00", holders, (1.0,) * len(members), ((),) * len(members), local_data=True)
    program = Program(FixedPeriod(1))
    return Order(View(1, members), 1, program, Replicated(program.schedule.init()), deal=deal, sources=have)


def test_as_long_as_nobody_has_any_data_all_is_read_and_nothing_is_given():
    assert sources({"a": (), "b": ()}, 4) == ()
    assert gifts(order(((0,), (1,), (2,), (0,)), ())) == ()


def test_a_new_holder_gets_a_chunk_from_the_first_that_has_it():
    have = sources({"a": (0, 1), "b": (1, 2), "c": (3,)}, 4)
    given = gifts(order(((0, 2), (0, 1), (1,), (2, 1)), have))
    assert given == (Gift(0, (0,), ((2,),)), Gift(2, (3,), ((1,),)))
    assert given[0].received_by(2) == (0,)
    assert given[0].received_by(1) == ()


def test_a_chunk_that_nobody_has_gets_no_holder_and_one_that_somebody_has_always_does():
    live = [ChunkHolder("a", "n1"), ChunkHolder("b", "n2")]
    table = Placement((("a",), ("b",), ("dead",), ("dead",)))
    after = placed(table, sources({"a": (0,), "b": (1, 3)}, 4), live, copies=2)
    assert after.holders == (("a", "b"), ("a", "b"), (), ("a", "b"))


def test_what_was_given_away_is_kept_for_an_order_more():
    held = Held(frozenset({0, 1})).after(order(((0,), (1,), (1,), (2,)), ()), 0)
    assert held == Held(frozenset({0}), frozenset({1}))
    assert held.chunks == (0, 1)
    assert held.after(order(((0,), (1,), (1,), (2,)), ()), 0).chunks == (0,)


def test_who_leaves_with_a_chunk_that_nobody_else_has_is_known():
    have = {"a": (0, 1), "b": (1,), "c": (2,)}
    assert alone(have, ["a", "b"]) == ("a", "b")  # together they would take chunk 1 away
    assert alone(have, ["b"]) == ()
