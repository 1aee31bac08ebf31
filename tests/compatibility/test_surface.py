"""What users and their files rely on is as it was in the list that `make_surface.py` made; it may only grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
LISTED: dict[str, Any] = json.loads((FOLDER / "surface.json").read_text())


@pytest.fixture(scope="module")
def today() -> dict[str, Any]:
    """In a process of its own, as the list was made: what other tests imported or changed says nothing."""
    command = [sys.executable, str(FOLDER / "make_surface.py")]
    environment = {
        name: value for name, value in os.environ.items() if name != "RAYSGD_DATA"
    }  # a default follows it
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """What is gone or has changed: of a mapping's values, of a list's items, or a value itself."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                yield f"{path}.{key} is gone"
            else:
                yield from lost(value, after[key], f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list):
        yield from (f"{path}: {item!r} is gone" for item in before if item not in after)
    elif before != after:
        yield f"{path} was {before!r} and is {after!r}"


@pytest.mark.parametrize("section", LISTED)
def test_nothing_that_users_rely_on_is_gone_or_changed(section: str, today: dict[str, Any]) -> None:
    assert list(lost(LISTED[section], today[section], section)) == []


@pytest.mark.parametrize("name", LISTED["signatures"])
def test_arguments_by_position_mean_the_same_and_new_ones_can_be_left_out(
    name: str, today: dict[str, Any]
) -> None:
    before, after = list(LISTED["signatures"][name]), dict(today["signatures"].get(name, {}))
    for collected in {"loader_options"} & set(before):  # `**` is always the last: new ones stand before it
        before.remove(collected)
        assert after.pop(collected) == ""
    assert list(after)[: len(before)] == before
    assert all(after[parameter] for parameter in list(after)[len(before) :])


@pytest.mark.parametrize("name", LISTED["commands"])
def test_options_that_are_new_can_be_left_out(name: str, today: dict[str, Any]) -> None:
    after = today["commands"].get(name, {})
    assert not [option for option in after if option not in LISTED["commands"][name] and after[option]["required"]]


@pytest.mark.parametrize("table", ["rounds.csv", "evals.csv"])
def test_columns_are_where_they_were(table: str, today: dict[str, Any]) -> None:
    before, after = LISTED["run directory"][table], today["run directory"][table]
    assert after[: len(before)] == before


def test_the_comparison_sees_what_is_gone_and_what_has_changed() -> None:
    before = {"kept": ["a", "b"], "gone": 1, "changed": {"default": "16"}}
    after = {"kept": ["c", "b"], "changed": {"default": "8", "more": "2"}, "new": 3}
    found = list(lost(before, after, "x"))
    assert found == ["x.kept: 'a' is gone", "x.gone is gone", "x.changed.default was '16' and is '8'"]
