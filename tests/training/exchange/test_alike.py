"""Members of a view compare what they have prepared, before they exchange any of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from raysgd_local.errors import InputError
from raysgd_local.training.exchange.alike import check_alike
from raysgd_local.transport.in_process import InProcessNetwork


def told(*records: dict[str, str]) -> list[str]:
    """The error of each member that brings one of these records; empty for none."""
    network = InProcessNetwork()

    def member(rank: int) -> str:
        try:
            check_alike(network.connect(1, rank, len(records)), records[rank])
        except InputError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(records)) as pool:
        return list(pool.map(member, range(len(records))))


ONE: dict[str, str] = {"parameter 'a'": "(3,) float32", "optimizer 0": "SGD"}


def test_equal_records_pass() -> None:
    assert told(ONE, dict(ONE), dict(ONE)) == ["", "", ""]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameter 'a'": "(4,) float32"}, "parameter 'a': '(3,) float32 on ranks 0, 2; (4,) float32 on rank 1'"),
        ({"optimizer 0": "Adam"}, "optimizer 0: 'SGD on ranks 0, 2; Adam on rank 1'"),
        (
            {"parameter 'b'": "(1,) int8", "optimizer 0": "Adam"},
            "parameter 'b': 'missing on ranks 0, 2; (1,) int8",
        ),
    ],
)
def test_the_first_part_that_differs_is_told_to_all_with_the_ranks(changes: dict[str, Any], words: str) -> None:
    errors = told(ONE, {**ONE, **changes}, ONE)
    assert len(set(errors)) == 1
    assert errors[0].startswith(words)
    assert "the same on all workers" in errors[0]


def test_the_same_parts_in_another_order_are_told() -> None:
    errors = told({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    assert errors[0].startswith("order of parameters: 'a, b on rank 0; b, a on rank 1'")


def test_of_many_ranks_the_first_are_named() -> None:
    errors = told(*([ONE] * 10), {**ONE, "optimizer 0": "Adam"})
    assert "SGD on ranks 0, 1, 2, 3, 4, 5, 6, 7 and 2 more; Adam on rank 10" in errors[0]
